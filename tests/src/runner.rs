//! A model file from end to end: compiled, validated, run.

use anyhow::{Context, Result, ensure};
use dunlin_artifact::Tensor;
use dunlin_compiler::{AlignedBytes, Compiled, Options, Report, compile};
use dunlin_runtime::{Artifact, Session, verify_golden};

use crate::Array;
use crate::compare::{Difference, Tolerance, compare};

/// A compiled model with an arena.
pub struct Runner {
    file: AlignedBytes,
    arena: AlignedBytes,
    /// What the compiler reported.
    pub report: Report,
}

impl Runner {
    /// Compiles a model and checks the artifact's digest.
    pub fn new(model: &[u8], options: &Options) -> Result<Self> {
        let Compiled { artifact, report } = compile(model, options)?;
        let file = AlignedBytes::new(&artifact);
        let parsed = Artifact::parse(file.as_slice()).context("the artifact is refused")?;
        parsed.verify_digest()?;
        let arena = AlignedBytes::zeroed(parsed.arena_len());
        Ok(Runner { file, arena, report })
    }

    /// The artifact.
    pub fn artifact(&self) -> Artifact<'_> {
        Artifact::parse(self.file.as_slice()).expect("was parsed before")
    }

    /// Runs the artifact's golden vectors; they must agree.
    pub fn verify_golden(&mut self) -> Result<usize> {
        let mut session = session(&self.file, &mut self.arena)?;
        verify_golden(&mut session)?
            .map_err(|mismatch| anyhow::anyhow!("golden vectors differ: {mismatch:?}"))
    }

    /// Runs the model once from its initial state.
    pub fn run(&mut self, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        let count = self.artifact().outputs().len();
        let mut session = session(&self.file, &mut self.arena)?;
        for (index, bytes) in inputs.iter().enumerate() {
            session.input_bytes_mut(index)?.copy_from_slice(bytes);
        }
        session.run()?;
        (0..count).map(|index| Ok(session.output_bytes(index)?.to_vec())).collect()
    }

    /// Runs samples and compares the outputs. The arrays' first axis is the sample; if `stateful`, the first two
    /// are sequence and step, and state lives from step to step. It is reset before each sample or sequence.
    pub fn compare(
        &mut self,
        inputs: &[Array],
        expected: &[Array],
        stateful: bool,
        tolerance: Tolerance,
    ) -> Result<Difference> {
        let lead = if stateful { 2 } else { 1 };
        let artifact = self.artifact();
        check_interface("inputs", artifact.inputs(), inputs, lead)?;
        check_interface("outputs", artifact.outputs(), expected, lead)?;
        let sequences = inputs.first().or(expected.first()).map_or(0, |array| array.shape[0]);
        let steps = if stateful { inputs[0].shape[1] } else { 1 };
        let runs = (sequences * steps).max(1);
        let part = |array: &'_ Array, run: usize| {
            let len = array.bytes.len() / runs;
            run * len..(run + 1) * len
        };

        // The arena starts as garbage, so that a read of memory that nobody wrote shows.
        self.arena.as_mut_slice().fill(0xA7);
        let mut session = session(&self.file, &mut self.arena)?;
        let mut total = Difference::default();
        for sequence in 0..sequences {
            session.reset();
            for step in 0..steps {
                let run = sequence * steps + step;
                for (index, array) in inputs.iter().enumerate() {
                    session.input_bytes_mut(index)?.copy_from_slice(&array.bytes[part(array, run)]);
                }
                session.run().with_context(|| format!("sample {sequence}, step {step}"))?;
                for (index, array) in expected.iter().enumerate() {
                    let actual = session.output_bytes(index)?;
                    let difference = compare(array.dtype, actual, &array.bytes[part(array, run)], tolerance);
                    total.add(difference, || match stateful {
                        true => format!("sequence {sequence} step {step} output {index}"),
                        false => format!("sample {sequence} output {index}"),
                    });
                }
            }
        }
        Ok(total)
    }
}

fn session<'m, 'a>(file: &'m AlignedBytes, arena: &'a mut AlignedBytes) -> Result<Session<'m, 'a>> {
    let artifact = Artifact::parse(file.as_slice()).expect("was parsed before");
    Ok(Session::new(artifact, arena.as_mut_slice())?)
}

/// Number, types and shapes of the model's inputs or outputs must be those of the arrays behind `lead` axes.
fn check_interface(
    what: &str,
    tensors: impl ExactSizeIterator<Item = Tensor>,
    arrays: &[Array],
    lead: usize,
) -> Result<()> {
    ensure!(tensors.len() == arrays.len(), "has {} {what}; expected are {}", tensors.len(), arrays.len());
    for (index, (tensor, array)) in tensors.zip(arrays).enumerate() {
        ensure!(
            tensor.dtype == array.dtype,
            "{what} {index}: is {}; expected is {}",
            tensor.dtype,
            array.dtype
        );
        let shape: Vec<usize> = tensor.shape().iter().map(|&dim| dim as usize).collect();
        let expected = array.shape.get(lead..).unwrap_or_default();
        ensure!(shape == expected, "{what} {index}: has shape {shape:?}; expected is {expected:?}");
    }
    Ok(())
}
