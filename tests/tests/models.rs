//! Whole models: every sample equals the reference, and the artifact is small.

use dunlin_compiler::Options;
use dunlin_tests::reference::{Reference, larger_set, own_models, shared_models};
use dunlin_tests::report::{publish, table};
use dunlin_tests::{Difference, Runner, Tolerance};

/// What one model's test found.
struct Outcome {
    row: [String; 9],
    failure: Option<String>,
}

fn options(reference: &Reference, golden: usize) -> Options {
    Options { name: reference.name.clone(), golden, ..Options::default() }
}

fn test(reference: &Reference) -> Outcome {
    let mut row: [String; 9] = std::array::from_fn(|_| String::new());
    row[0].clone_from(&reference.name);
    match check(reference, &mut row) {
        Ok(()) => Outcome { row, failure: None },
        Err(error) => {
            let failure = Some(format!("{}: {error:#}", reference.name));
            row[8] = "FAILED".into();
            Outcome { row, failure }
        }
    }
}

fn check(reference: &Reference, row: &mut [String; 9]) -> anyhow::Result<()> {
    // Without golden vectors an artifact may not be larger than its source.
    let bare = Runner::new(&reference.model, &options(reference, 0))?.report.artifact_bytes;
    let mut runner = Runner::new(&reference.model, &options(reference, 2))?;
    let golden = runner.report.artifact_bytes - bare;
    row[4] = runner.report.arena_bytes.to_string();
    row[5] = runner.report.arena_bound_bytes.to_string();
    row[6] = format!("{bare} + {golden}");
    row[7] = reference.model.len().to_string();
    anyhow::ensure!(runner.verify_golden()? == 2, "golden vectors are missing");
    let difference =
        runner.compare(&reference.inputs, &reference.outputs, reference.stateful, Tolerance::MODEL)?;
    let samples: Vec<_> =
        reference.inputs[0].shape.iter().take(if reference.stateful { 2 } else { 1 }).collect();
    row[1] = samples.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
    row[2] = difference.values.to_string();
    row[3] = difference.differing.to_string();
    row[8].clone_from(&reference.source);
    let excused = matches!(reference.known, Some((count, most))
        if difference.differing <= count && difference.largest <= most * 1.0001);
    if excused {
        row[8] += " (differs from TFLM alike)";
    }
    anyhow::ensure!(difference.differing == 0 || excused, "{}", describe(&difference));
    anyhow::ensure!(bare <= reference.model.len(), "the artifact is larger than the model file");
    Ok(())
}

fn describe(difference: &Difference) -> String {
    format!(
        "{} of {} values differ, by {} at most; {}",
        difference.differing,
        difference.values,
        difference.largest,
        difference.first.as_deref().unwrap_or_default()
    )
}

fn report(name: &str, outcomes: Vec<Outcome>) {
    let header = [
        "model",
        "samples",
        "values",
        "differing",
        "arena",
        "bound",
        "artifact + golden",
        ".tflite",
        "reference",
    ];
    let (rows, failures): (Vec<_>, Vec<_>) = outcomes.into_iter().map(|o| (o.row, o.failure)).unzip();
    let failures: Vec<String> = failures.into_iter().flatten().collect();
    publish(name, &format!("{}\n{}", table(header, &rows), failures.join("\n")));
    assert!(
        failures.is_empty(),
        "{} of {} models failed:\n{}",
        failures.len(),
        rows.len(),
        failures.join("\n")
    );
    assert!(!rows.is_empty(), "there are no models");
}

#[test]
fn own() {
    let models = own_models().expect("the repository's models are readable");
    report("own-models", models.iter().map(test).collect());
}

#[test]
fn larger() {
    let Some(folder) = larger_set() else {
        println!(
            "SKIPPED: there is no larger set of models (DUNLIN_MODELS); tested are the repository's own"
        );
        return;
    };
    let models = shared_models(&folder).expect("the set's index is readable");
    let outcomes = models.iter().map(|model| match model.load(&folder) {
        Ok(reference) => test(&reference),
        Err(error) => panic!("{error:#}"),
    });
    report("larger-models", outcomes.collect());
}

/// Arena bytes for the four MLPerf Tiny models, next to TensorFlow Lite Micro's and the live-tensor bound.
#[test]
fn arenas_of_mlperf_tiny() {
    /// Model, largest sum of tensors that live at once, TensorFlow Lite Micro's arena.
    const MODELS: [(&str, usize); 4] =
        [("kws_ref_int8", 16_000), ("vww_96_int8", 55_296), ("ic_resnet8_int8", 49_152), ("ad01_int8", 768)];
    /// Offsets are multiples of 16.
    const ALIGNMENT: usize = 16 * 4;
    let Some(folder) = larger_set() else {
        println!("SKIPPED: there is no larger set of models (DUNLIN_MODELS)");
        return;
    };
    let models = shared_models(&folder).expect("the set's index is readable");
    let mut rows = Vec::new();
    for (name, bound) in MODELS {
        let model =
            models.iter().find(|model| model.name == name).expect("the set has the MLPerf Tiny models");
        let model = model.model(&folder).expect("the model is readable");
        let report = Runner::new(&model, &Options::default()).expect("the model compiles").report;
        rows.push([
            name.to_owned(),
            report.arena_bytes.to_string(),
            report.arena_bound_bytes.to_string(),
            bound.to_string(),
        ]);
    }
    publish("arenas", &table(["model", "arena", "bound of this program", "live-tensor bound"], &rows));
    for [name, arena, _, bound] in &rows {
        let (arena, bound): (usize, usize) = (arena.parse().unwrap(), bound.parse().unwrap());
        assert!(arena <= bound + ALIGNMENT, "{name}: arena of {arena} bytes is above the bound of {bound}");
    }
}
