//! The commands on the repository's own models.

mod support;

use support::{Bench, Npy, array, dunlin, model_file, models, read_npz};

const COMMANDS: [&str; 7] = ["compile", "inspect", "run", "eval", "bench", "verify", "ops"];

#[test]
fn every_command_has_help_with_an_example_and_json() {
    for command in COMMANDS {
        for flag in ["--help", "-h"] {
            let help = dunlin(&[command, flag]).success().stdout;
            assert!(help.contains(&format!("Example:\n  dunlin {command}")), "{help}");
            assert!(help.contains("--json"), "{help}");
        }
    }
    let help = dunlin(&["--help"]).success().stdout;
    assert!(COMMANDS.iter().all(|command| help.contains(command)), "{help}");
}

#[test]
fn compile_prints_a_summary_and_writes_a_report() {
    let bench = Bench::new();
    let (model, artifact, report) =
        (model_file("keyword_dscnn_int8.tflite"), bench.path("kws.dunlin"), bench.path("report.json"));
    let said =
        dunlin(&["compile", &model, "-o", &artifact, "--name", "kws", "--golden", "3", "--report", &report]);
    let text = said.success().stdout;
    for part in ["CONV_2D", "conv2d_i8", "the least that any plan needs", "the model file has 12,912"] {
        assert!(text.contains(part), "{text}");
    }
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["name"], "kws");
    assert_eq!(report["artifact_bytes"], std::fs::metadata(&artifact).unwrap().len());
    let inspected = dunlin(&["inspect", &artifact, "--json"]).success().json();
    assert_eq!(inspected["name"], "kws");
    assert_eq!(inspected["golden"].as_array().unwrap().len(), 3);
    let summary = dunlin(&["compile", &model, "-o", &artifact, "--json"]).success().json();
    assert_eq!(summary["output"], artifact);
    assert_eq!(summary["arena_bytes"], report["arena_bytes"]);
}

#[test]
fn compiling_twice_gives_the_same_bytes() {
    let bench = Bench::new();
    let first = std::fs::read(bench.compiled("digits_resnet_int8")).unwrap();
    assert_eq!(first, std::fs::read(bench.compiled("digits_resnet_int8")).unwrap());
}

#[test]
fn exposed_intermediates_become_outputs() {
    let bench = Bench::new();
    let (model, artifact) = (model_file("keyword_dscnn_int8.tflite"), bench.path("all.dunlin"));
    dunlin(&["compile", &model, "-o", &artifact, "--expose-intermediates"]).success();
    let outputs =
        dunlin(&["inspect", &artifact, "--json"]).success().json()["outputs"].as_array().unwrap().len();
    assert!(outputs > 5, "{outputs}");
    let (input, output) = (model_file("keyword_x_int8.npy"), bench.path("layers.npz"));
    dunlin(&["run", &artifact, "--input", &input, "--output", &output]).success();
    assert_eq!(read_npz(&output).len(), outputs);
    let single = bench.path("layers.npy");
    dunlin(&["run", &artifact, "--input", &input, "--output", &single])
        .failure(1, &["layers.npy", &format!("{outputs} outputs"), ".npz"]);
}

#[test]
fn inspect_shows_everything_about_a_model() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_dscnn_int8");
    let text = dunlin(&["inspect", &artifact, "--instructions"]).success().stdout;
    let parts = [
        "(verified)",
        "Inputs and outputs",
        "[1, 49, 10, 1]",
        "depthwise_i8",
        "in firmware: dunlin_runtime::model!(keyword_dscnn_int8, \"keyword_dscnn_int8.dunlin\");",
        "Arena: ",
        "Golden vectors: 2\n  0: from seed 12345, 1 step, 8 output bytes\n  1: from zeros",
    ];
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn inspect_explains_the_work_and_the_memory_of_every_model() {
    let bench = Bench::new();
    for model in models() {
        let report = dunlin(&["inspect", &bench.compiled(&model), "--json"]).success().json();
        assert_eq!(report["digest_verified"], true, "{model}");
        let sum = |list: &str| -> u64 {
            report[list].as_array().unwrap().iter().map(|item| item["macs"].as_u64().unwrap()).sum()
        };
        assert_eq!(
            sum("instructions"),
            report["macs"].as_u64().unwrap(),
            "{model}: MACs of the instructions"
        );
        assert_eq!(sum("kernels"), report["macs"].as_u64().unwrap(), "{model}: MACs of the kernels");

        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        let arena = &report["arena"];
        let plan = arena["plan"].as_array().expect("all kernels are known");
        let mut live = vec![number(&arena["state_bytes"]); report["instructions"].as_array().unwrap().len()];
        for stay in plan {
            assert!(number(&stay["offset"]) + number(&stay["bytes"]) <= number(&arena["bytes"]), "{model}");
            // In its first step a result may still share memory with the operand that it replaces.
            for step in number(&stay["first"]) + 1..=number(&stay["last"]) {
                live[step as usize] += number(&stay["bytes"]);
            }
        }
        assert!(live.iter().all(|&bytes| bytes <= number(&arena["bytes"])), "{model}: {live:?}");
        assert!(number(&arena["bound_bytes"]) <= number(&arena["bytes"]), "{model}");
    }
}

#[test]
fn run_reproduces_the_reference_outputs() {
    let bench = Bench::new();
    for model in models() {
        let (artifact, data, output) =
            (bench.compiled(&model), model_file(&format!("{model}.npz")), bench.path("out.npz"));
        let expected = array(&data, "out_0");
        let mut arguments = vec!["run", &artifact, "--input", &data, "--output", &output];
        let stateful = model.contains("streaming") || model.contains("svdf");
        if stateful {
            arguments.push("--sequences");
        }
        dunlin(&arguments).success();
        let outputs = read_npz(&output);
        assert_eq!(outputs.len(), 1, "{model}");
        let actual = &outputs[0].1;
        assert_eq!((&actual.shape, &actual.descr), (&expected.shape, &expected.descr), "{model}");
        if expected.descr != "<f4" {
            assert_eq!(actual.bytes, expected.bytes, "{model}");
        }
        for (actual, expected) in actual.f32s().into_iter().zip(expected.f32s()) {
            assert!(
                (actual - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                "{model}: {actual}, {expected}"
            );
        }
    }
}

#[test]
fn without_a_batch_axis_the_outputs_have_none() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_dscnn_int8");
    let (without, output) = (model_file("keyword_x_int8.npy"), bench.path("out.npy"));
    dunlin(&["run", &artifact, "--input", &without, "--output", &output]).success();
    let scores = Npy::read(&output);
    assert_eq!(scores.shape, [40, 8]);

    let with = Npy::read(&without).reshaped(&[40, 1, 49, 10, 1]);
    let with = bench.file("with.npy", &with.file());
    let report =
        dunlin(&["run", &artifact, "--input", &with, "--output", &output, "--json"]).success().json();
    assert_eq!(report["outputs"][0]["shape"], serde_json::json!([40, 1, 8]));
    assert_eq!(Npy::read(&output), scores.reshaped(&[40, 1, 8]));
}

#[test]
fn state_is_carried_within_sequences_only() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_streaming_int8");
    let frames = array(&model_file("keyword_streaming_int8.npz"), "in_0");
    let [sequences, steps] = [frames.shape[0], frames.shape[1]];
    let row_len = frames.shape[2..].iter().product();
    let input = bench.file("frames.npy", &frames.file());
    let (whole, single) = (bench.path("whole.npy"), bench.path("single.npy"));
    dunlin(&["run", &artifact, "--input", &input, "--sequences", "--output", &whole]).success();
    let whole = Npy::read(&whole);

    // Every frame as a sample of its own: the first of each sequence alone agrees.
    let flat = frames.reshaped(&[&[sequences * steps], &frames.shape[2..]].concat());
    let flat = bench.file("flat.npy", &flat.file());
    dunlin(&["run", &artifact, "--input", &flat, "--output", &single]).success();
    let single = Npy::read(&single);
    let row = whole.bytes.len() / (sequences * steps);
    for sequence in 0..sequences {
        let at = sequence * steps * row;
        assert_eq!(whole.bytes[at..at + row], single.bytes[at..at + row]);
    }
    assert_ne!(whole.bytes, single.bytes);

    dunlin(&["run", &artifact, "--input", &input, "--output", &bench.path("x.npy")])
        .failure(1, &["frames.npy", "shape", "with --sequences"]);
    let rows = bench.file("rows.npy", &frames.reshaped(&[sequences * steps, row_len]).file());
    dunlin(&["run", &artifact, "--input", &rows, "--sequences", "--output", &bench.path("x.npy")])
        .failure(1, &["rows.npy", "shape", "[N, T, "]);
    let samples = model_file("keyword_x_int8.npy");
    let artifact = bench.compiled("keyword_dscnn_int8");
    dunlin(&["run", &artifact, "--input", &samples, "--sequences", "--output", &bench.path("x.npy")])
        .failure(1, &["keyword_x_int8.npy", "shape", "without --sequences"]);
}

#[test]
fn real_values_are_quantized_only_when_asked() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_dscnn_int8");
    let inputs = &dunlin(&["inspect", &artifact, "--json"]).success().json()["inputs"][0];
    let (scale, zero_point) =
        (inputs["scale"].as_f64().unwrap() as f32, inputs["zero_point"].as_i64().unwrap() as f32);
    let raw = Npy::read(&model_file("keyword_x_int8.npy"));
    let reals: Vec<f32> =
        raw.bytes.iter().map(|&byte| scale * (f32::from(byte as i8) - zero_point)).collect();
    let reals = bench.file("reals.npy", &Npy::f32(&raw.shape, &reals).file());
    let (expected, output) = (bench.path("expected.npy"), bench.path("out.npy"));
    dunlin(&["run", &artifact, "--input", &model_file("keyword_x_int8.npy"), "--output", &expected])
        .success();

    dunlin(&["run", &artifact, "--input", &reals, "--output", &output])
        .failure(1, &["reals.npy", "float32", "expected is int8 (scale", "--quantize-input"]);
    dunlin(&["run", &artifact, "--input", &reals, "--output", &output, "--quantize-input"]).success();
    let scores = Npy::read(&output);
    assert_eq!(scores, Npy::read(&expected));

    // Softmax has scale 1/256 and zero point -128.
    dunlin(&["run", &artifact, "--input", &reals, "--output", &output, "--quantize-input", "--dequantize"])
        .success();
    let reals: Vec<f32> = scores.bytes.iter().map(|&byte| (f32::from(byte as i8) + 128.0) / 256.0).collect();
    assert_eq!(Npy::read(&output), Npy::f32(&scores.shape, &reals));
}

#[test]
fn eval_reports_accuracy_with_a_confusion_matrix() {
    let bench = Bench::new();
    let artifact = bench.compiled("digits_resnet_int8");
    let (x, y) = (model_file("digits_x_int8.npy"), model_file("digits_y.npy"));
    let report = dunlin(&["eval", &artifact, "--inputs", &x, "--labels", &y, "--json"]).success().json();

    // Count again, from what `run` gives.
    let output = bench.path("out.npy");
    dunlin(&["run", &artifact, "--input", &x, "--output", &output]).success();
    let (scores, labels) = (Npy::read(&output), Npy::read(&y));
    let first_largest = |row: &[u8]| {
        let values: Vec<i8> = row.iter().map(|&byte| byte as i8).collect();
        values.iter().position(|value| value == values.iter().max().unwrap()).unwrap()
    };
    let predicted = scores.bytes.chunks(10).map(first_largest);
    let labels = labels.bytes.chunks(4).map(|label| u32::from_le_bytes(label.try_into().unwrap()) as usize);
    let pairs: Vec<(usize, usize)> = labels.zip(predicted).collect();
    let correct = pairs.iter().filter(|(label, predicted)| label == predicted).count();
    assert_eq!(report["correct"], correct);
    assert_eq!(report["value"].as_f64().unwrap(), correct as f64 / pairs.len() as f64);
    let count =
        |label: usize, predicted: usize| pairs.iter().filter(|&&pair| pair == (label, predicted)).count();
    for label in 0..10 {
        for predicted in 0..10 {
            assert_eq!(report["confusion"]["counts"][label][predicted], count(label, predicted));
        }
    }
    assert!(report["latency"]["p95_us"].as_f64() >= report["latency"]["median_us"].as_f64());
    let text = dunlin(&["eval", &artifact, "--inputs", &x, "--labels", &y]).success().stdout;
    assert!(text.contains("accuracy 0.") && text.contains("recall") && text.contains("p95"), "{text}");
}

#[test]
fn eval_scores_an_autoencoder_by_its_error() {
    let bench = Bench::new();
    let artifact = bench.compiled("vibration_autoencoder_int8");
    let (x, y) = (model_file("vibration_x_int8.npy"), model_file("vibration_y.npy"));
    let auc = |x: &str| {
        let said = dunlin(&["eval", &artifact, "--inputs", x, "--labels", &y, "--metric", "auc", "--json"]);
        said.success().json()["value"].as_f64().unwrap()
    };
    let whole = auc(&x);
    assert!(whole > 0.99, "{whole}");
    // Every sample as two equal windows: the mean of their errors ranks the samples the same.
    let array = Npy::read(&x);
    let doubled = array.bytes.chunks(64).flat_map(|window| [window, window]).flatten().copied().collect();
    let windows = Npy::new(&array.descr, &[array.shape[0], 2, 64], doubled);
    assert_eq!(auc(&bench.file("windows.npy", &windows.file())), whole);
}

#[test]
fn eval_measures_the_mean_absolute_error() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_dscnn_int8");
    let (x, output) = (model_file("keyword_x_int8.npy"), bench.path("out.npy"));
    dunlin(&["run", &artifact, "--input", &x, "--output", &output, "--dequantize"]).success();
    let mut labels = Npy::read(&output);
    let eval = |labels: &Npy| {
        let labels = bench.file("labels.npy", &labels.file());
        let said =
            dunlin(&["eval", &artifact, "--inputs", &x, "--labels", &labels, "--metric", "mae", "--json"]);
        said.success().json()["value"].as_f64().unwrap()
    };
    assert_eq!(eval(&labels), 0.0);
    // One of 40 x 8 values is off by 32.
    let first = f32::from_le_bytes(labels.bytes[..4].try_into().unwrap()) + 32.0;
    labels.bytes[..4].copy_from_slice(&first.to_le_bytes());
    assert!((eval(&labels) - 0.1).abs() < 1e-6);
}

#[test]
fn eval_refuses_labels_that_do_not_fit() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_dscnn_int8");
    let x = model_file("keyword_x_int8.npy");
    let eval = |labels: Npy, metric: &str| {
        let labels = bench.file("y.npy", &labels.file());
        dunlin(&["eval", &artifact, "--inputs", &x, "--labels", &labels, "--metric", metric])
    };
    eval(Npy::new("|u1", &[39], vec![0; 39]), "accuracy").failure(1, &["y.npy", "39 labels", "need 40"]);
    eval(Npy::new("|u1", &[40], vec![8; 40]), "accuracy")
        .failure(1, &["y.npy", "label 0 is 8", "from 0 to 7"]);
    eval(Npy::f32(&[40], &[0.0; 40]), "accuracy").failure(1, &["y.npy", "is float32", "integers"]);
    eval(Npy::new("|u1", &[40], vec![0; 40]), "auc").failure(1, &["[1, 8]", "for auc"]);
    dunlin(&["eval", &artifact, "--inputs", &x, "--labels", &x, "--metric", "rocket"]);
}

#[test]
fn bench_reports_time_work_and_memory() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_streaming_int8");
    let report =
        dunlin(&["bench", &artifact, "--iterations", "20", "--threads", "2", "--json"]).success().json();
    let number = |name: &str| report[name].as_f64().unwrap();
    assert_eq!((number("iterations"), number("threads")), (20.0, 2.0));
    assert_eq!(number("peak_arena_bytes"), 2.0 * number("arena_bytes"));
    assert!(number("macs_per_second") > 0.0 && number("load_us") > 0.0);
    let latency = |name: &str| report["latency"][name].as_f64().unwrap();
    assert!(0.0 < latency("min_us") && latency("min_us") <= latency("median_us"));
    let share = |list: &str| -> f64 {
        report[list].as_array().unwrap().iter().map(|item| item["share"].as_f64().unwrap()).sum()
    };
    assert!((share("kernels") - 1.0).abs() < 1e-9 && (share("instructions") - 1.0).abs() < 1e-9);
    let text = dunlin(&["bench", &artifact, "--iterations", "3"]).success().stdout;
    assert!(text.contains("3 runs in 1 thread") && text.contains("Slowest operators"), "{text}");
}

#[test]
fn verify_agrees_or_names_the_first_difference() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_svdf_int8");
    let text = dunlin(&["verify", &artifact]).success().stdout;
    assert_eq!(text, "2 golden vectors agree (4 steps each); the digest matches\n");
    let report = dunlin(&["verify", &artifact, "--json"]).success().json();
    assert_eq!((&report["verified"], &report["vectors"]), (&true.into(), &2.into()));

    // The promised outputs of the second vector, 4 steps of 8 bytes, stand right before the constants.
    let mut bytes = std::fs::read(&artifact).unwrap();
    let run = bench.path("zeros.npy");
    let zeros = bench.file("zeros_in.npy", &Npy::new("|i1", &[1, 4, 10], vec![0; 40]).file());
    dunlin(&["run", &artifact, "--input", &zeros, "--sequences", "--output", &run]).success();
    let promised = Npy::read(&run).bytes;
    let at = bytes.windows(promised.len()).rposition(|window| window == promised).expect("golden outputs");
    bytes[at + 11] ^= 1;
    let damaged = bench.file("damaged.dunlin", &bytes);
    let expected = promised[11] as i8 ^ 1;
    let difference = format!("element 3: expected {expected}, computed {}", promised[11] as i8);
    let said = dunlin(&["verify", &damaged, "--json"]);
    let said = said.failure(1, &["damaged.dunlin", "golden vector 1, step 1, output ", &difference]);
    let report = said.json();
    assert_eq!((&report["verified"], &report["digest_verified"]), (&false.into(), &false.into()));
    assert_eq!(report["mismatch"]["index"], 3);
    assert_eq!(report["mismatch"]["expected"], expected);
}

#[test]
fn verify_says_when_there_is_nothing_to_run() {
    let bench = Bench::new();
    let artifact = bench.path("bare.dunlin");
    dunlin(&["compile", &model_file("keyword_svdf_int8.tflite"), "-o", &artifact, "--golden", "0"]).success();
    let text = dunlin(&["verify", &artifact]).success().stdout;
    assert!(text.contains("no golden vectors"), "{text}");
}
