//! Every operator and element type against the reference interpreters' outputs, on random single-operator models.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

use dunlin_compiler::{CompileError, Options};
use dunlin_tests::oracle::{Case, Loaded, Set};
use dunlin_tests::reference::repository;
use dunlin_tests::report::{keep, table};
use dunlin_tests::{Runner, Tolerance};

/// What became of the cases of one operator and element type.
#[derive(Default)]
struct Row {
    required: bool,
    cases: usize,
    refused: usize,
    differing: usize,
    values: usize,
    /// The first problem.
    example: Option<String>,
}

enum Outcome {
    Equal(usize),
    Refused(String),
    Wrong(String),
}

fn run(case: &Case, loaded: &Loaded) -> Outcome {
    let options = Options { golden: 1, ..Options::default() };
    let mut runner = match Runner::new(&loaded.model, &options) {
        Ok(runner) => runner,
        Err(error) => {
            let refused = matches!(
                error.downcast_ref(),
                Some(CompileError::Unsupported { .. } | CompileError::Model(_))
            );
            let text = format!("{error:#}");
            return if refused { Outcome::Refused(text) } else { Outcome::Wrong(text) };
        }
    };
    let tolerance = Tolerance { relative: case.tolerance, steps: case.steps };
    let outcome = runner
        .verify_golden()
        .and_then(|_| runner.compare(&loaded.inputs, &loaded.outputs, case.stateful, tolerance));
    match outcome {
        Ok(difference) if difference.differing == 0 => Outcome::Equal(difference.values),
        Ok(difference) => Outcome::Wrong(format!(
            "{} of {} values differ, by {} at most; {}",
            difference.differing,
            difference.values,
            difference.largest,
            difference.first.unwrap_or_default()
        )),
        Err(error) => Outcome::Wrong(format!("{error:#}")),
    }
}

/// Runs a set on all cores, prints what it covers, and fails when anything differs or a required case is refused.
fn check(name: &str, set: &Set) {
    let rows: Mutex<BTreeMap<String, Row>> = Mutex::default();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < set.len())
        {
            let (case, loaded) = set.load(index).expect("the oracle's files are readable");
            let outcome = run(case, &loaded);
            let mut rows = rows.lock().expect("no worker panics while it holds the lock");
            let row = rows.entry(format!("{} {}", case.operator, case.dtype)).or_default();
            row.required = case.required;
            row.cases += 1;
            let problem = match outcome {
                Outcome::Equal(values) => {
                    row.values += values;
                    continue;
                }
                Outcome::Refused(text) => {
                    row.refused += 1;
                    text
                }
                Outcome::Wrong(text) => {
                    row.differing += 1;
                    text
                }
            };
            row.example.get_or_insert_with(|| format!("{}: {problem} {}", case.name, case.parameters));
        }
    };
    let cores = thread::available_parallelism().map_or(1, Into::into);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });

    let rows = rows.into_inner().expect("all workers have ended");
    let cells: Vec<_> = rows
        .iter()
        .map(|(variant, row)| {
            let refused =
                if row.required { row.refused.to_string() } else { format!("{} (may)", row.refused) };
            let equal = row.cases - row.refused - row.differing;
            [variant.clone(), equal.to_string(), row.differing.to_string(), refused, row.values.to_string()]
        })
        .collect();
    let count = |f: fn(&Row) -> usize| rows.values().map(f).sum::<usize>();
    let (cases, differing, refused) = (count(|r| r.cases), count(|r| r.differing), count(|r| r.refused));
    let full = table(["operator", "equal", "differing", "refused", "values"], &cells);
    let mut text = format!(
        "{name}: {cases} cases of {} operators and types, {} values; {differing} cases differ, {refused} refused\n",
        rows.len(),
        count(|r| r.values)
    );
    for (variant, row) in rows.iter().filter(|(_, row)| row.refused + row.differing > 0) {
        text += &format!("{variant}: {}\n", row.example.as_deref().unwrap_or_default());
    }
    println!("{text}");
    keep(&format!("oracle-{name}"), &format!("{full}\n{text}"));
    let failed = |row: &&Row| row.differing > 0 || row.required && row.refused > 0;
    let failures = rows.values().filter(failed).count();
    assert_eq!(
        failures, 0,
        "{failures} operators and types differ from the oracle or are refused; see above"
    );
    assert!(cases > 0, "the set is empty");
}

#[test]
fn kept_cases() {
    let path = repository().join("tests/oracle/cases/cases.npz");
    check("kept", &Set::packed(&path).expect("the kept cases are readable"));
}

#[test]
fn generated_cases() {
    let Some(folder) = env::var_os("DUNLIN_ORACLE") else {
        println!(
            "SKIPPED: DUNLIN_ORACLE names no folder of generated cases; tested are only those kept here"
        );
        return;
    };
    check("generated", &Set::folder(Path::new(&folder)).expect("the generated cases are readable"));
}
