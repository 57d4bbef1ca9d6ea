//! The table of operators against what the compiler really does.

mod support;

use std::collections::BTreeSet;

use dunlin_compiler::{Options, compile};
use serde_json::Value;
use support::{array, dunlin, model_file, models};

/// Operators and the kernels that they have become.
type Pairs = BTreeSet<(String, String)>;

fn table() -> Pairs {
    let report = dunlin(&["ops", "--json"]).success().json();
    let operators = report["operators"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let kernels = |operator: &Value| operator["kernels"].as_array().unwrap().clone();
    let pairs = operators.iter().flat_map(|operator| {
        kernels(operator).into_iter().map(move |kernel| (operator["name"].clone(), kernel))
    });
    pairs.map(|(name, kernel)| (text(&name), text(&kernel))).collect()
}

fn pairs_of(model: &[u8], pairs: &mut Pairs) {
    // Whether a model compiles is another test's question.
    if let Ok(compiled) = compile(model, &Options { golden: 0, ..Options::default() }) {
        let operators = compiled.report.operators.into_iter();
        pairs.extend(operators.map(|operator| (operator.operator, operator.kernel.to_owned())));
    }
}

/// What the compiler makes of the oracle's single-operator models and of the repository's models.
fn observed() -> Pairs {
    let mut pairs = Pairs::new();
    let cases = model_file("../tests/oracle/cases/cases.npz");
    let (index, blob) = (array(&cases, "index").bytes, array(&cases, "blob").bytes);
    let index: Value = serde_json::from_slice(&index).unwrap();
    for case in index["cases"].as_array().unwrap() {
        let [at, len] = [0, 1].map(|i| case["model"][i].as_u64().unwrap() as usize);
        pairs_of(&blob[at..at + len], &mut pairs);
    }
    for model in models() {
        pairs_of(&std::fs::read(model_file(&format!("{model}.tflite"))).unwrap(), &mut pairs);
    }
    pairs
}

#[test]
fn the_table_says_what_the_compiler_does() {
    let (table, observed) = (table(), observed());
    let missing: Vec<_> = observed.difference(&table).collect();
    assert!(missing.is_empty(), "the compiler does what the table does not say: {missing:?}");
    // Copies that only a model output in an unusual place needs, and types that the oracle does not have.
    let unseen: Vec<_> =
        table.difference(&observed).map(|(operator, kernel)| format!("{operator} {kernel}")).collect();
    println!("in the table, not in any case: {unseen:?}");
    assert!(unseen.len() * 5 < table.len(), "{unseen:?}");
}

#[test]
fn the_readme_shows_the_table() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let begin = "<!-- operators: printed by `dunlin ops` -->\n";
    let shown = readme.split_once(begin).unwrap().1.split_once("<!-- end of operators -->").unwrap().0;
    assert_eq!(
        shown,
        dunlin(&["ops"]).success().stdout,
        "replace the table in README.md by what `dunlin ops` prints"
    );
}
