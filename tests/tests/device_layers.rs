//! Every intermediate tensor against TensorFlow Lite Micro on a microcontroller: hashes taken there.

use std::path::Path;

use dunlin_artifact::Pattern;
use dunlin_compiler::Options;
use dunlin_tests::Runner;
use dunlin_tests::reference::larger_set;
use dunlin_tests::report::{publish, table};

/// Files of the set's `mcu-golden` folder and the models they belong to.
const MODELS: [(&str, &str); 8] = [
    ("ad", "ad01_int8"),
    ("hello", "hello_world_int8"),
    ("ic", "ic_resnet8_int8"),
    ("kws", "kws_ref_int8"),
    ("micro_speech", "micro_speech_int8"),
    ("person", "person_detect_int8"),
    ("sww", "sww_ref_int8"),
    ("vww", "vww_96_int8"),
];

/// Seed of the generated input of the `lcg` lines.
const SEED: u32 = 12_345;

#[test]
fn intermediate_tensors_equal_those_on_a_device() {
    let Some(folder) = larger_set().filter(|folder| folder.join("mcu-golden").is_dir()) else {
        println!("SKIPPED: there is no larger set of models (DUNLIN_MODELS)");
        return;
    };
    let mut rows = Vec::new();
    for (file, model) in MODELS {
        let (tensors, outputs) =
            compare(&folder, file, model).unwrap_or_else(|error| panic!("{model}: {error}"));
        rows.push([model.to_owned(), tensors.to_string(), outputs.to_string()]);
    }
    publish("device-layers", &table(["model", "equal tensors", "equal outputs of further seeds"], &rows));
}

/// How many tensors and outputs were compared; an error names the first that differs.
fn compare(folder: &Path, file: &str, model: &str) -> Result<(usize, usize), String> {
    let source =
        std::fs::read(folder.join(format!("models/{model}.tflite"))).map_err(|error| error.to_string())?;
    let golden = std::fs::read_to_string(folder.join(format!("mcu-golden/{file}.txt")))
        .map_err(|error| error.to_string())?;
    let options = Options { golden: 0, expose_intermediates: true, ..Options::default() };
    let mut exposed = Runner::new(&source, &options).map_err(|error| error.to_string())?;
    let mut plain = Runner::new(&source, &Options::default()).map_err(|error| error.to_string())?;

    let (mut tensors, mut outputs) = (0, 0);
    for (name, pattern) in [("zeros", Pattern::Zeros), ("lcg", Pattern::Lcg(SEED))] {
        let computed = run(&mut exposed, pattern)?;
        // The model's output comes first, then the other tensors in the order in which they are computed.
        let in_order = computed.iter().skip(1).chain(computed.first());
        let layers: Vec<Vec<&str>> = golden
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|line| line[0] == "LAYER" && line[1] == name)
            .collect();
        if layers.len() != computed.len() {
            return Err(format!("{} tensors are computed, {} are known", computed.len(), layers.len()));
        }
        for (layer, bytes) in layers.iter().zip(in_order) {
            let (operator, hash) = (layer[2], layer[5]);
            let found = format!("{:08x}", fnv1a(bytes));
            if found != hash {
                return Err(format!("operator {operator} of {name}: hash {found}, on the device {hash}"));
            }
            tensors += 1;
        }
    }
    for line in golden.lines().filter(|line| line.starts_with("OUT ")) {
        let [_, seed, bytes] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("unexpected line {line}"));
        };
        let seed = seed.parse().map_err(|_| format!("unexpected seed {seed}"))?;
        let output = run(&mut plain, Pattern::Lcg(seed))?.swap_remove(0);
        let found: String = output.iter().map(|byte| format!("{byte:02x}")).collect();
        if found != bytes {
            return Err(format!("seed {seed}: output {found}, on the device {bytes}"));
        }
        outputs += 1;
    }
    if outputs == 0 { Err("no outputs are known".into()) } else { Ok((tensors, outputs)) }
}

/// Runs a model on a generated input.
fn run(runner: &mut Runner, mut pattern: Pattern) -> Result<Vec<Vec<u8>>, String> {
    let input = runner.artifact().inputs().next().ok_or("the model has no input")?;
    let mut bytes = vec![0; input.bytes()];
    pattern.fill(input.dtype, &mut bytes);
    runner.run(&[&bytes]).map_err(|error| error.to_string())
}

/// 32-bit FNV-1a.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
}
