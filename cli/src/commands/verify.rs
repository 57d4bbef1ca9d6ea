//! `dunlin verify`: do the golden vectors hold here?

use std::path::PathBuf;

use dunlin_artifact::DType;
use dunlin_runtime::{Mismatch, verify_golden};
use serde::Serialize;
use serde_json::Value;

use crate::error::Failure;
use crate::model::{Model, ModelFile};
use crate::output::{Outcome, count, printable};

/// Run the golden vectors of an artifact.
///
/// Checks the digest, runs every golden vector and compares the outputs with what the artifact promises: integers
/// must be equal, floats close. Exits with 1 at the first element that differs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dunlin verify kws.dunlin")]
pub(crate) struct Args {
    /// The artifact.
    #[arg(value_name = "FILE.dunlin")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    verified: bool,
    digest_verified: bool,
    /// Golden vectors in the file.
    vectors: usize,
    /// Runs per vector.
    steps: u16,
    /// Vectors that agreed before the first difference.
    agreed: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    mismatch: Option<Difference>,
}

#[derive(Serialize)]
struct Difference {
    vector: usize,
    step: usize,
    output: String,
    index: usize,
    expected: Value,
    actual: Value,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let file = ModelFile::read(&args.file)?;
    let model = file.parse()?;
    let digest_verified = model.artifact.verify_digest().is_ok();
    let mut arena = model.arena();
    let mut session = model.session(&mut arena)?;
    let result = verify_golden(&mut session).map_err(|error| model.run_failure(error))?;

    let vectors = model.artifact.golden().count();
    let (agreed, mismatch) = match result {
        Ok(agreed) => (agreed, None),
        Err(mismatch) => (mismatch.vector, Some(difference(&model, &mismatch))),
    };
    let steps = model.artifact.golden().next().map_or(0, |golden| golden.steps);
    let verified = digest_verified && mismatch.is_none();
    let report =
        Report { file: args.file.clone(), verified, digest_verified, vectors, steps, agreed, mismatch };
    let text = match vectors {
        _ if !verified => String::new(),
        0 => "the digest matches; there are no golden vectors (compile with --golden 2)\n".into(),
        _ => format!(
            "{} agree ({} each); the digest matches\n",
            count(vectors, "golden vector"),
            count(steps.into(), "step")
        ),
    };
    let outcome = Outcome::new(&report, text);
    Ok(match &report.mismatch {
        Some(found) => outcome.failed(mismatch_failure(found).file(&args.file)),
        None if !digest_verified => {
            let failure = Failure::new("the digest does not match: the file was damaged or changed");
            outcome
                .failed(failure.file(&args.file).way_out("copy the file again, or compile the model again"))
        }
        None => outcome,
    })
}

fn difference(model: &Model<'_>, mismatch: &Mismatch) -> Difference {
    let output = model.outputs.get(mismatch.output);
    let dtype = output.map_or(DType::U64, |output| output.tensor.dtype);
    Difference {
        vector: mismatch.vector,
        step: mismatch.step,
        output: output.map_or_else(String::new, |output| output.name.clone()),
        index: mismatch.element,
        expected: number(dtype, mismatch.expected),
        actual: number(dtype, mismatch.actual),
    }
}

fn mismatch_failure(found: &Difference) -> Failure {
    let Difference { vector, step, output, index, expected, actual } = found;
    let output = printable(output);
    Failure::new(format!(
        "golden vector {vector}, step {step}, output {output}, element {index}: expected {expected}, computed {actual}"
    ))
    .way_out("if the digest matches, a kernel is wrong on this machine")
}

/// An element from its bytes, which were zero-extended to 64 bits.
fn number(dtype: DType, bits: u64) -> Value {
    match dtype {
        DType::I8 => (bits as u8 as i8).into(),
        DType::I16 => (bits as u16 as i16).into(),
        DType::I32 => (bits as u32 as i32).into(),
        DType::I64 => (bits as i64).into(),
        DType::F32 => f64::from(f32::from_bits(bits as u32)).into(),
        DType::F16 => f64::from(half::f16::from_bits(bits as u16)).into(),
        DType::U8 | DType::U32 | DType::U64 | DType::Bool => bits.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_shown_in_their_own_type() {
        assert_eq!(number(DType::I8, 0xff), Value::from(-1));
        assert_eq!(number(DType::I16, 0x8000), Value::from(-32768));
        assert_eq!(number(DType::U8, 0xff), Value::from(255));
        assert_eq!(number(DType::F32, 0x3f80_0000), Value::from(1.0));
    }
}
