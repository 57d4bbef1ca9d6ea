//! `dunlin compile --calibrate` on the repository's own models, and what `inspect` shows of it.

mod support;

use serde_json::Value;
use support::{Bench, Npy, array, dunlin, model_file};

fn feature<'v>(report: &'v Value, name: &str) -> &'v Value {
    let features = report["baseline"]["features"].as_array().expect("features");
    features.iter().find(|feature| feature["name"] == name).unwrap_or_else(|| panic!("{name}: {features:?}"))
}

fn counts(feature: &Value) -> Vec<u64> {
    feature["counts"].as_array().expect("counts").iter().map(|count| count.as_u64().expect("count")).collect()
}

#[test]
fn a_classifier_is_monitored_by_default() {
    let bench = Bench::new();
    let (model, x) = (model_file("digits_resnet_int8.tflite"), model_file("digits_x_int8.npy"));
    let artifact = bench.path("digits.dunlin");
    let bare = dunlin(&["compile", &model, "-o", &artifact, "--json"]).success().json();
    assert_eq!(bare["baseline"], Value::Null);
    let text = dunlin(&["inspect", &artifact]).success().stdout;
    assert!(text.contains("Baseline: none; `dunlin compile --calibrate` makes one"), "{text}");

    let summary = dunlin(&["compile", &model, "-o", &artifact, "--calibrate", &x]).success().stdout;
    assert!(summary.contains("baseline    3 features in "), "{summary}");
    assert!(summary.contains("from 150 samples; a window takes "), "{summary}");
    let report = dunlin(&["inspect", &artifact, "--json"]).success().json();
    assert_eq!((&report["digest_verified"], &report["baseline"]["samples"]), (&true.into(), &150.into()));
    // Apart from the baseline the artifact is the same, and reproducible.
    assert!(report["file_bytes"].as_u64() > bare["artifact_bytes"].as_u64());
    let first = std::fs::read(&artifact).unwrap();
    let again = dunlin(&["compile", &model, "-o", &artifact, "--calibrate", &x, "--json"]).success().json();
    assert_eq!(first, std::fs::read(&artifact).unwrap());
    assert_eq!(again["baseline"], report["baseline"]);
    assert_eq!(again["artifact_bytes"], first.len());
    dunlin(&["verify", &artifact]).success();

    // The classes are those that `run` gives.
    let output = bench.path("out.npy");
    dunlin(&["run", &artifact, "--input", &x, "--output", &output]).success();
    let mut classes = vec![0; 10];
    for scores in Npy::read(&output).bytes.chunks(10) {
        let scores: Vec<i8> = scores.iter().map(|byte| byte.cast_signed()).collect();
        classes[scores.iter().position(|score| score == scores.iter().max().unwrap()).unwrap()] += 1;
    }
    assert_eq!(counts(feature(&report, "StatefulPartitionedCall:0.class")), classes);

    let input = feature(&report, "serving_default_x:0");
    let (edges, counts) = (input["edges"].as_array().unwrap(), counts(input));
    assert_eq!((edges.len() + 1, counts.iter().sum::<u64>()), (counts.len(), 150 * 64));
    let values: Vec<f64> =
        Npy::read(&x).bytes.iter().map(|byte| f64::from(byte.cast_signed()) + 128.0).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64 / 255.0;
    assert!((input["mean"].as_f64().unwrap() - mean).abs() < 1e-6, "{input} {mean}");

    let text = dunlin(&["inspect", &artifact]).success().stdout;
    for part in ["Baseline: 3 features", "position of the largest element", "9,600"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn what_is_monitored_can_be_chosen() {
    let bench = Bench::new();
    let (model, x) = (model_file("vibration_autoencoder_int8.tflite"), model_file("vibration_x_int8.npy"));
    let artifact = bench.path("vibration.dunlin");
    let chosen =
        ["--monitor", "in0[3]=values", "--monitor", "in0=confidence,categories", "--monitor", "out0=nothing"];
    let arguments =
        [&["compile", &model, "-o", &artifact, "--calibrate", &x, "--json"], &chosen[..]].concat();
    let report = dunlin(&arguments).success().json();
    let features = report["baseline"]["features"].as_array().unwrap();
    let shown: Vec<_> =
        features.iter().map(|feature| (&feature["kind"], &feature["part"], &feature["n"])).collect();
    let samples = report["baseline"]["samples"].as_u64().unwrap();
    let expected = [
        ("numeric", "element 3", samples),
        ("numeric", "largest element", samples),
        ("categories", "every element", 64 * samples),
    ];
    assert_eq!(shown.len(), expected.len(), "{features:?}");
    for (shown, expected) in shown.iter().zip(expected) {
        assert_eq!(
            (shown.0.as_str(), shown.1.as_str(), shown.2.as_u64()),
            (Some(expected.0), Some(expected.1), Some(expected.2))
        );
    }
}

#[test]
fn a_stream_keeps_its_state_while_it_is_calibrated() {
    let bench = Bench::new();
    let (model, data) =
        (model_file("keyword_streaming_int8.tflite"), model_file("keyword_streaming_int8.npz"));
    let artifact = bench.path("stream.dunlin");
    let stream = ["--calibrate", &data, "--sequences", "--monitor", "out0=class"];
    let arguments = [&["compile", &model, "-o", &artifact, "--json"], &stream[..]].concat();
    let report = dunlin(&arguments).success().json();
    let shape = array(&data, "in_0").shape;
    assert_eq!(report["baseline"]["samples"], shape[0] * shape[1]);
    // The reference outputs are those of streams with state.
    let expected = array(&data, "out_0");
    let classes = *expected.shape.last().unwrap();
    let mut largest = vec![0; classes];
    for scores in expected.bytes.chunks(classes) {
        let scores: Vec<i8> = scores.iter().map(|byte| byte.cast_signed()).collect();
        largest[scores.iter().position(|score| score == scores.iter().max().unwrap()).unwrap()] += 1;
    }
    let features = report["baseline"]["features"].as_array().unwrap();
    let class = features.iter().find(|feature| feature["kind"] == "classes").expect("asked for");
    assert_eq!(counts(class), largest);
    dunlin(&["compile", &model, "-o", &artifact, "--calibrate", &data])
        .failure(1, &["keyword_streaming_int8.npz", "with --sequences"]);
}

#[test]
fn the_application_brings_features() {
    let bench = Bench::new();
    let (model, x) = (model_file("digits_cnn_float32.tflite"), model_file("digits_x_float32.npy"));
    let x = Npy::read(&x);
    let samples = x.shape[0];
    let arrays = [
        ("in_0", x),
        ("supply", Npy::f32(&[samples], &(0..samples).map(|i| 3.0 + i as f32 / 100.0).collect::<Vec<_>>())),
        ("mode", Npy::new("<i4", &[4], [7i32, 7, 9, 7].iter().flat_map(|mode| mode.to_le_bytes()).collect())),
    ];
    let data = bench.path("data.npz");
    support::write_npz(&data, &arrays);
    let country = bench.file("country.txt", "de\nfr\n\nde\nde\n".as_bytes());
    let (artifact, country) = (bench.path("a.dunlin"), format!("country={country}"));
    let applications = ["--application", "supply", "--application", "mode", "--application", &country];
    let arguments =
        [&["compile", &model, "-o", &artifact, "--calibrate", &data, "--json"], &applications[..]].concat();
    let report = dunlin(&arguments).success().json();
    let supply = feature(&report, "supply");
    assert_eq!((&supply["kind"], &supply["source"]), (&"numeric".into(), &"application".into()));
    assert_eq!(supply["n"], samples);
    let mut modes = counts(feature(&report, "mode"));
    modes.truncate(2);
    modes.sort_unstable();
    assert_eq!(modes, [1, 3]);
    let country = feature(&report, "country");
    assert_eq!((&country["n"], &country["missing"]), (&4.into(), &1.into()));
    assert_eq!(country["known"].as_array().unwrap().len(), 2);
    dunlin(&["compile", &model, "-o", &artifact, "--calibrate", &data, "--application", "humidity"])
        .failure(1, &["data.npz", "no array named \"humidity\"", "--application NAME=FILE"]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let bench = Bench::new();
    let (model, x) = (model_file("digits_resnet_int8.tflite"), model_file("digits_x_int8.npy"));
    let artifact = bench.path("a.dunlin");
    let compile = |x: &str, extra: &[&str]| {
        dunlin(&[&["compile", &model, "-o", &artifact, "--calibrate", x], extra].concat())
    };
    compile(&x, &["--monitor", "in1=values"]).failure(1, &["digits_x_int8.npy", "input 1", "1 inputs"]);
    compile(&x, &["--monitor", "in0[64]=values"]).failure(1, &["no element 64", "64"]);
    compile(&x, &["--monitor", "out0[2]=class"]).failure(1, &["output 0", "over all elements"]);
    compile(&x, &["--monitor", "in0=elements,elements"])
        .failure(1, &["130 features", "the limits are 128", "monitor fewer"]);
    compile(&model_file("digits_x_float32.npy"), &[])
        .failure(1, &["digits_x_float32.npy", "--quantize-input"]);
    compile(&model_file("digits_x_float32.npy"), &["--quantize-input"]).success();
    let empty = bench.file("empty.npy", &Npy::new("|i1", &[0, 8, 8, 1], vec![]).file());
    compile(&empty, &[]).failure(1, &["empty.npy", "no samples"]);
    let said = dunlin(&["compile", &model, "-o", &artifact, "--monitor", "in0=values"]);
    assert_eq!((said.code, said.stderr.contains("--calibrate")), (2, true), "{}", said.stderr);
    let said = compile(&x, &["--monitor", "in0=mean"]);
    assert_eq!(
        (said.code, said.stderr.contains("it is one of nothing, values")),
        (2, true),
        "{}",
        said.stderr
    );
    let same = bench.file("x.npy", &std::fs::read(&x).unwrap());
    dunlin(&["compile", &model, "-o", &same, "--calibrate", &same]).failure(2, &["are the same"]);
}
