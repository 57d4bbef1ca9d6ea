//! Finer references of the larger set: every intermediate tensor of some models, and single-operator files.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use dunlin_artifact::DType;
use dunlin_compiler::Options;
use dunlin_tests::array::{numbered, read_npz};
use dunlin_tests::compare::compare;
use dunlin_tests::reference::{larger_set, read_json, shared_models};
use dunlin_tests::report::{publish, table};
use dunlin_tests::{Array, Runner, Tolerance};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order {
    operators: Vec<Operator>,
}

#[derive(Deserialize)]
struct Operator {
    op: String,
    inputs: Vec<i32>,
    outputs: Vec<i32>,
}

/// Tensors that a fully connected layer has had a part in: LiteRT's reference kernel, which made these files,
/// rounds it differently from TensorFlow Lite Micro, so they need not be equal. (The models' outputs are compared
/// with TensorFlow Lite Micro's elsewhere.)
fn behind_fully_connected(order: &Order) -> HashSet<i32> {
    let mut tainted = HashSet::new();
    for operator in &order.operators {
        if operator.op == "FULLY_CONNECTED" || operator.inputs.iter().any(|input| tainted.contains(input)) {
            tainted.extend(&operator.outputs);
        }
    }
    tainted
}

#[test]
fn intermediate_tensors() {
    let Some(folder) = larger_set() else {
        println!("SKIPPED: there is no larger set of models (DUNLIN_MODELS)");
        return;
    };
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for model in shared_models(&folder).expect("the set's index is readable") {
        let Some(layers) = &model.layers else { continue };
        let reference = read_npz(&folder.join(layers)).expect("the intermediate tensors are readable");
        let order: Order =
            read_json(&folder.join(layers).with_extension("json")).expect("the order is readable");
        let tainted = behind_fully_connected(&order);
        let file = model.model(&folder).expect("the model is readable");
        let options = Options { golden: 0, expose_intermediates: true, ..Options::default() };
        let mut runner = Runner::new(&file, &options).expect("the model compiles");
        // The model's own outputs first, then everything else in the order in which it is computed.
        let computed: Vec<i32> =
            order.operators.iter().flat_map(|operator| operator.outputs.clone()).collect();
        let outputs =
            run_exposed(&mut runner, &model.first_sample(&folder).expect("the inputs are readable"));
        let own = outputs.len().checked_sub(computed.len() - 1).expect("every tensor is exposed");
        let (inner, last) = computed.split_at(computed.len() - own);
        let expected = [last, inner].concat();

        let (mut equal, mut values, mut off) = (0, 0, (0, 0.0_f64));
        for (tensor, (dtype, bytes)) in expected.iter().zip(&outputs) {
            let Some(want) = reference.get(&format!("t{tensor}")) else { continue };
            assert_eq!(want.dtype, *dtype, "{}: tensor {tensor}", model.name);
            let difference = compare(*dtype, bytes, &want.bytes, Tolerance::EXACT);
            values += difference.values;
            if difference.differing == 0 {
                equal += 1;
            } else if tainted.contains(tensor) {
                off = (off.0 + 1, off.1.max(difference.largest));
            } else {
                failures.push(format!(
                    "{} tensor {tensor}: {} of {} values differ; {}",
                    model.name,
                    difference.differing,
                    difference.values,
                    difference.first.unwrap_or_default()
                ));
            }
        }
        rows.push([
            model.name.clone(),
            equal.to_string(),
            values.to_string(),
            format!("{} (by {} at most)", off.0, off.1),
        ]);
    }
    let header = ["model", "equal tensors", "values", "behind FULLY_CONNECTED, not equal"];
    publish("layers", &format!("{}\n{}", table(header, &rows), failures.join("\n")));
    assert!(failures.is_empty(), "{} tensors differ; see above", failures.len());
    assert!(!rows.is_empty(), "the set has no intermediate tensors");
}

/// The outputs of one run.
fn run_exposed(runner: &mut Runner, inputs: &[Array]) -> Vec<(DType, Vec<u8>)> {
    let dtypes: Vec<DType> = runner.artifact().outputs().map(|tensor| tensor.dtype).collect();
    let outputs = runner.run(&inputs.iter().map(|array| &array.bytes[..]).collect::<Vec<_>>());
    dtypes.into_iter().zip(outputs.expect("the model runs")).collect()
}

#[test]
fn single_operator_files() {
    let Some(folder) = larger_set().map(|folder| folder.join("ops")).filter(|folder| folder.is_dir()) else {
        println!("SKIPPED: there is no larger set of models (DUNLIN_MODELS)");
        return;
    };
    #[derive(Deserialize)]
    struct Index {
        tests: Vec<Test>,
    }
    #[derive(Deserialize)]
    struct Test {
        name: String,
        ops: HashMap<String, usize>,
        /// Values in which today's TensorFlow Lite Micro differs from the files' outputs.
        tflm_differs: usize,
    }
    let index: Index = read_json(&folder.join("index.json")).expect("the index is readable");
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for test in &index.tests {
        let outcome = single_operator(&folder, &test.name);
        let text = match outcome {
            Ok((values, differing)) => {
                if differing != test.tflm_differs {
                    failures.push(format!(
                        "{}: {differing} values differ, expected {}",
                        test.name, test.tflm_differs
                    ));
                }
                (values.to_string(), differing.to_string())
            }
            Err(error) => {
                failures.push(format!("{}: {error:#}", test.name));
                ("-".into(), "FAILED".into())
            }
        };
        let operators: Vec<&str> = test.ops.keys().map(String::as_str).collect();
        rows.push([test.name.clone(), operators.join(", "), text.0, text.1, test.tflm_differs.to_string()]);
    }
    let header = ["file", "operator", "values", "differing", "TFLM's own differing"];
    publish("single-operator-files", &format!("{}\n{}", table(header, &rows), failures.join("\n")));
    assert!(failures.is_empty(), "{} files failed; see above", failures.len());
    assert!(!rows.is_empty(), "the index is empty");
}

fn single_operator(folder: &Path, name: &str) -> anyhow::Result<(usize, usize)> {
    let model = std::fs::read(folder.join(format!("{name}.tflite")))?;
    let arrays = read_npz(&folder.join(format!("{name}.npz")))?;
    // These files hold one sample without an axis for it.
    let with_axis = |prefix| {
        let mut arrays = numbered(&arrays, prefix);
        arrays.iter_mut().for_each(|array| array.shape.insert(0, 1));
        arrays
    };
    let mut runner = Runner::new(&model, &Options { golden: 0, ..Options::default() })?;
    let difference = runner.compare(&with_axis("in"), &with_axis("out"), false, Tolerance::EXACT)?;
    Ok((difference.values, difference.differing))
}
