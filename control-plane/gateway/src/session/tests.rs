use super::*;
use crate::Message;
use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::Index};

/// What well-behaved clients send, as bytes: raw material for what others send.
fn packets(is_v5: bool) -> Vec<Vec<u8>> {
    let texts: [&[u8]; 4] = [
        &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a'],
        &[0x32, 17, 0, 11, b'd', b'/', b'a', b'/', b'u', b'p', b'/', b'x', b'y', b'z', b'!', 0, 1, 1, 2],
        &[0x82, 13, 0, 2, 0, 8, b'd', b'/', b'a', b'/', b'd', b'o', b'w', b'n', 1],
        &[0xa2, 12, 0, 3, 0, 8, b'd', b'/', b'a', b'/', b'd', b'o', b'w', b'n'],
    ];
    let v5: [&[u8]; 4] = [
        &[0x10, 19, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 5, 0x11, 0, 0, 0, 1, 0, 1, b'a'],
        &[0x32, 16, 0, 8, b'd', b'/', b'a', b'/', b'u', b'p', b'/', b'x', 0, 1, 2, 1, 0, 9],
        &[0x82, 16, 0, 2, 0, 0, 10, b'd', b'/', b'a', b'/', b'd', b'o', b'w', b'n', b'/', b'#', 1],
        &[0xa2, 15, 0, 3, 0, 0, 10, b'd', b'/', b'a', b'/', b'd', b'o', b'w', b'n', b'/', b'#'],
    ];
    let both: [&[u8]; 5] = [&[0xc0, 0], &[0x40, 2, 0, 1], &[0x62, 2, 0, 1], &[0x50, 2, 0, 1], &[0xe0, 0]];
    let own = if is_v5 { v5 } else { texts };
    own.into_iter().chain(both).map(<[u8]>::to_vec).collect()
}

/// Feeds everything in pieces, acknowledges what is published and sends messages meanwhile.
fn run(input: &[u8], piece: usize) {
    let mut trial = Trial::new();
    for piece in input.chunks(piece) {
        trial.feed(piece);
        trial.complete(0);
        trial.send(piece.len() as u8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes(input in vec(any::<u8>(), 0..600), piece in 1usize..100) {
        run(&input, piece);
    }

    /// Packets in any order, some bytes of which are changed, and one end of which may be cut.
    #[test]
    fn damaged_packets(
        is_v5: bool,
        order in vec(any::<Index>(), 0..30),
        damage in vec((any::<Index>(), any::<u8>()), 0..6),
        cut in any::<Index>(),
        piece in 1usize..100,
    ) {
        let packets = packets(is_v5);
        let mut input = packets[0].clone();
        order.iter().for_each(|index| input.extend(index.get(&packets)));
        for (at, byte) in damage {
            let at = at.index(input.len());
            input[at] = byte;
        }
        run(&input, piece);
        input.truncate(cut.index(input.len()));
        run(&input, piece);
    }
}

#[test]
fn the_raw_material_is_good() {
    for is_v5 in [false, true] {
        let packets = packets(is_v5);
        let mut session = Session::new(Arc::default());
        assert!(matches!(session.feed(&mut &packets[0][..]), Event::Login(_)));
        session.accept(Arc::from("a"));
        let publish = session.feed(&mut &packets[1][..]);
        assert!(matches!(publish, Event::Publish(_)), "{publish:?}");
    }
}

#[test]
fn a_packet_identifier_that_is_used_again_and_again_is_no_way_around_the_limit() {
    let limits = Limits::default();
    let most = limits.receive_maximum;
    let mut session = Session::new(Arc::new(limits));
    let packets = packets(true);
    session.feed(&mut &packets[0][..]);
    session.accept(Arc::from("a"));
    for _ in 0..most {
        assert!(matches!(session.feed(&mut &packets[1][..]), Event::Publish(_)));
    }
    assert!(matches!(session.feed(&mut &packets[1][..]), Event::Close(CloseReason::Malformed)));
    assert_eq!(session.unacknowledged(), usize::from(most));
}

#[test]
fn a_message_that_the_client_does_not_take_is_left_out() {
    let mut session = Session::new(Arc::default());
    // A CONNECT with a maximum packet size of 64 bytes.
    let connect = [0x10, 19, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 5, 0x27, 0, 0, 0, 64, 0, 1, b'a'];
    assert!(matches!(session.feed(&mut &connect[..]), Event::Login(_)));
    session.accept(Arc::from("a"));
    assert!(matches!(session.feed(&mut &packets(true)[2][..]), Event::Subscribed));
    let written = session.output.len();
    let mut message = Message {
        topic: "d/a/down/desired".into(),
        payload: Bytes::from_static(&[0; 100]),
        at_least_once: true,
        retained: true,
    };
    for _ in 0..100 {
        assert!(session.may_send(), "what is left out takes no place");
        session.send(&message, false);
    }
    assert_eq!((session.output.len(), session.tally.sent), (written, 0));
    message.payload = Bytes::from_static(b"short");
    session.send(&message, false);
    assert_eq!(session.tally.sent, 1);
    // A client that takes less cannot be answered.
    let mut session = Session::new(Arc::default());
    let mut connect = connect;
    connect[17] = 63;
    assert!(matches!(session.feed(&mut &connect[..]), Event::Close(CloseReason::PacketTooLarge)));
}

#[test]
fn an_answer_older_than_what_was_sent_is_left_out() {
    let mut session = Session::new(Arc::default());
    let packets = packets(true);
    session.feed(&mut &packets[0][..]);
    session.accept(Arc::from("a"));
    assert!(matches!(session.feed(&mut &packets[2][..]), Event::Subscribed));
    let state = |body: &'static [u8]| Message {
        topic: "d/a/down/desired".into(),
        payload: Bytes::from_static(body),
        at_least_once: true,
        retained: true,
    };
    // The handler has been asked; before it answers, a newer state is sent.
    session.send(&state(b"newer"), false);
    assert_eq!(session.retained(vec![state(b"older")]), []);
    // Asked again, its answer is good.
    assert!(matches!(session.feed(&mut &packets[2][..]), Event::Subscribed));
    assert_eq!(session.retained(vec![state(b"newer")]), [state(b"newer")]);
}
