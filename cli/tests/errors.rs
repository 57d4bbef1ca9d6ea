//! Errors: the exit code, one line that names file, reason and way out, and JSON on request.

mod support;

use support::{Bench, Npy, dunlin, model_file};

#[test]
fn wrong_usage_exits_with_2() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_dscnn_int8");
    let x = model_file("keyword_x_int8.npy");
    let copy = bench.file("copy.tflite", &std::fs::read(model_file("keyword_dscnn_int8.tflite")).unwrap());
    let cases: [&[&str]; 11] = [
        &[],
        &["launch"],
        &["compile", "model.tflite"],
        &["compile", "model.tflite", "-o", "x.dunlin", "--target", "toaster"],
        &["compile", &copy, "-o", &copy],
        &["compile", &copy, "-o", "x.dunlin", "--golden", "-1"],
        &["run", &artifact, "--input", &x],
        &["run", &artifact, "--input", &x, "--output", "scores.csv"],
        &["bench", &artifact, "--threads", "0"],
        &["bench", &artifact, "--iterations", "many"],
        &["eval", &artifact, "--inputs", &x, "--labels", &x, "--metric", "beauty"],
    ];
    for arguments in cases {
        let said = dunlin(arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.stderr);
        assert!(!said.stderr.is_empty());
    }
    assert!(
        std::fs::read(&copy).unwrap().starts_with(&std::fs::read(&copy).unwrap()[..8]),
        "not overwritten"
    );
}

#[test]
fn files_that_are_not_artifacts_are_refused() {
    let bench = Bench::new();
    let artifact = std::fs::read(bench.compiled("keyword_dscnn_int8")).unwrap();
    for command in ["inspect", "verify", "bench"] {
        dunlin(&[command, &bench.path("absent.dunlin")]).failure(1, &["absent.dunlin: cannot be read"]);
        dunlin(&[command, &model_file("keyword_dscnn_int8.tflite")])
            .failure(1, &["not a Dunlin", "dunlin compile"]);
        dunlin(&[command, &bench.file("empty.dunlin", &[])]).failure(1, &["empty.dunlin", "dunlin compile"]);
        let half = bench.file("half.dunlin", &artifact[..artifact.len() / 2]);
        dunlin(&[command, &half]).failure(1, &["half.dunlin", "truncated", "again"]);
    }
}

#[test]
fn a_damaged_artifact_is_shown_but_not_run() {
    let bench = Bench::new();
    let mut bytes = std::fs::read(bench.compiled("keyword_dscnn_int8")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let damaged = bench.file("damaged.dunlin", &bytes);
    let text = dunlin(&["inspect", &damaged]).success().stdout;
    assert!(text.contains("DOES NOT MATCH"), "{text}");
    let (x, y) = (model_file("keyword_x_int8.npy"), model_file("keyword_y.npy"));
    let parts = ["damaged.dunlin", "digest"];
    dunlin(&["run", &damaged, "--input", &x, "--output", &bench.path("out.npy")]).failure(1, &parts);
    dunlin(&["eval", &damaged, "--inputs", &x, "--labels", &y]).failure(1, &parts);
    dunlin(&["bench", &damaged]).failure(1, &parts);
    assert_eq!(dunlin(&["verify", &damaged]).code, 1);
}

#[test]
fn no_damage_to_an_artifact_makes_a_command_panic() {
    let bench = Bench::new();
    let artifact = std::fs::read(bench.compiled("keyword_svdf_int8")).unwrap();
    for step in 0..60 {
        let mut bytes = artifact.clone();
        let at = step * 7919 % bytes.len().min(1200);
        bytes[at] ^= 1 << (step % 8);
        let file = bench.file("flipped.dunlin", &bytes);
        for command in ["inspect", "verify"] {
            let said = dunlin(&[command, &file]);
            assert!(said.code < 2 && !said.stderr.contains("panicked"), "{at}: {}", said.stderr);
        }
    }
}

#[test]
fn models_that_cannot_be_compiled_are_refused() {
    let bench = Bench::new();
    let out = bench.path("out.dunlin");
    let text = bench.file("notes.txt", b"not a model at all");
    dunlin(&["compile", &text, "-o", &out]).failure(1, &["notes.txt", ".tflite"]);
    let model = std::fs::read(model_file("keyword_dscnn_int8.tflite")).unwrap();
    let half = bench.file("half.tflite", &model[..model.len() / 2]);
    dunlin(&["compile", &half, "-o", &out]).failure(1, &["half.tflite", "malformed"]);
    assert!(!std::path::Path::new(&out).exists());
    dunlin(&[
        "compile",
        &model_file("keyword_dscnn_int8.tflite"),
        "-o",
        &bench.path("no/such/folder.dunlin"),
    ])
    .failure(1, &["folder.dunlin", "cannot be written"]);
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_dscnn_int8");
    let run = |file: &[u8]| {
        let input = bench.file("x.npy", file);
        dunlin(&["run", &artifact, "--input", &input, "--output", &bench.path("out.npy"), "--quantize-input"])
    };
    let sample = [1, 49, 10, 1];
    run(&Npy::new("|i1", &[1, 10, 49], vec![0; 490]).file())
        .failure(1, &["x.npy", "[1, 10, 49]", "[N, 49, 10, 1] or [N, 1, 49, 10, 1] of int8"]);
    run(&Npy::new("|u1", &sample, vec![0; 490]).file()).failure(1, &["uint8", "store raw int8 values"]);
    run(&Npy::new("<f8", &sample, vec![0; 3920]).file()).failure(1, &["float64", "float32"]);
    run(&Npy::new(">f4", &sample, vec![0; 1960]).file()).failure(1, &["big-endian"]);
    run(&Npy::f32(&sample, &[f32::NAN; 490]).file()).failure(1, &["NaN", "sample 0"]);
    run(&Npy::new("|i1", &[2, 49, 10, 1], vec![0; 490]).file()).failure(1, &["980 bytes", "has 490"]);
    run(b"1,2,3").failure(1, &["neither an .npy nor an .npz", "numpy.save"]);
    run(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").failure(1, &["header"]);
    run(b"PK\x03\x04").failure(1, &["not a readable .npz"]);
    assert!(!std::path::Path::new(&bench.path("out.npy")).exists());
}

#[test]
fn archives_are_matched_by_name_or_position() {
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_dscnn_int8");
    let own = dunlin(&["inspect", &artifact, "--json"]).success().json()["inputs"][0]["name"].clone();
    let (own, out) = (own.as_str().unwrap(), bench.path("out.npy"));
    let sample = Npy::new("|i1", &[1, 49, 10, 1], vec![0; 490]).file();
    let run = |names: &[&str]| {
        let mut writer = zip::ZipWriter::new(std::fs::File::create(bench.path("in.npz")).unwrap());
        for name in names {
            writer.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
            std::io::Write::write_all(&mut writer, &sample).unwrap();
        }
        writer.finish().unwrap();
        dunlin(&["run", &artifact, "--input", &bench.path("in.npz"), "--output", &out])
    };
    run(&[own]).success();
    run(&["labels", own]).success();
    run(&["in_0", "labels"]).success();
    run(&["whatever"]).success();
    run(&["a", "b"]).failure(1, &["in.npz", "\"a\", \"b\"", &format!("expected are {own:?}"), "in_0"]);
    run(&[]).failure(1, &["in.npz", "nothing"]);
}

#[test]
fn errors_are_json_on_request() {
    let bench = Bench::new();
    let absent = bench.path("absent.dunlin");
    let error = &dunlin(&["inspect", &absent, "--json"]).failure(1, &["absent.dunlin"]).json()["error"];
    assert_eq!((&error["kind"], &error["file"]), (&"failure".into(), &absent.clone().into()));
    assert!(error["message"].as_str().unwrap().contains("cannot be read"));

    let said = dunlin(&["inspect", "--json"]);
    assert_eq!((said.code, &said.json()["error"]["kind"]), (2, &"usage".into()));
    assert!(said.json()["error"]["message"].as_str().unwrap().contains("required"));
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    use std::process::{Command, Stdio};
    let bench = Bench::new();
    let artifact = bench.compiled("keyword_dscnn_int8");
    let mut child = Command::new(env!("CARGO_BIN_EXE_dunlin"))
        .args(["inspect", &artifact, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
