//! Any bytes from a client of the embedded MQTT endpoint, in any pieces, while the handler commits in any order and
//! messages go to the device: no panic, and every bound is kept.
#![no_main]

use dunlin_gateway::Trial;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut trial = Trial::new();
    let mut rest = bytes;
    while let [choice, argument, more @ ..] = rest {
        rest = more;
        match choice % 8 {
            0 => trial.complete(*argument),
            1 => trial.send(*argument),
            _ => {
                let (piece, more) = rest.split_at(rest.len().min(usize::from(*argument)));
                trial.feed(piece);
                rest = more;
            }
        }
    }
});
