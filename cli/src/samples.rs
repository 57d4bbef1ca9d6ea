//! Arrays from files, bound to a model's inputs and fed to it sample by sample.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_artifact::DType;
use dunlin_runtime::{RunError, Session};
use indicatif::ProgressBar;

use crate::array::{Array, Element};
use crate::error::{Failure, read_file};
use crate::model::{Model, Port};
use crate::npz;

/// Largest file of arrays.
const MAX_FILE: u64 = 4 << 30;

/// The arrays of a file, with their names if it is an `.npz` file.
pub(crate) enum Arrays {
    One(Array),
    Named(Vec<(String, Array)>),
}

/// How an array's first axes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[sample, …]`; state is reset before each sample.
    Samples,
    /// `[sequence, step, …]`; state is carried from step to step.
    Sequences,
    /// `[sample, window, …]`; state is reset before each window.
    Windows,
}

/// One array bound to one input.
struct Feed {
    array: Array,
    /// Bytes of the array per run.
    chunk: usize,
    /// The input's scale, zero point and range, when real values are to be quantized.
    quantize: Option<Quantize>,
}

#[derive(Clone, Copy)]
struct Quantize {
    scale: f32,
    zero_point: f64,
    range: (f64, f64),
    bytes: usize,
}

/// Everything to be run.
pub(crate) struct Samples {
    feeds: Vec<Feed>,
    pub(crate) layout: Layout,
    /// Samples or sequences.
    pub(crate) count: usize,
    /// Steps or windows of each; 1 for [`Layout::Samples`].
    pub(crate) steps: usize,
    /// The arrays have no batch axis; outputs then have none either.
    pub(crate) batch_left_out: bool,
}

impl Arrays {
    /// Reads an `.npy` or `.npz` file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = read_file(path, MAX_FILE)?;
        let arrays = if Array::is_npy(&bytes) {
            Array::from_npy(&bytes).map(Arrays::One)
        } else if npz::is_npz(&bytes) {
            npz::read(&bytes).map(Arrays::Named)
        } else {
            Err("is neither an .npy nor an .npz file".into())
        };
        arrays.map_err(|error| {
            Failure::new(error).file(path).way_out("numpy.save and numpy.savez write such files")
        })
    }

    /// Takes the array with this name out of an archive.
    pub(crate) fn take(&mut self, name: &str) -> Option<Array> {
        let Arrays::Named(named) = self else { return None };
        let position = named.iter().position(|(found, _)| found == name)?;
        Some(named.remove(position).1)
    }

    /// One array for every input, in the model's order.
    fn for_inputs(self, inputs: &[Port]) -> Result<Vec<Array>, Failure> {
        let mut named = match (self, inputs) {
            (Arrays::One(array), [_]) => return Ok(vec![array]),
            (Arrays::One(_), _) => {
                let message = format!("holds one array, but the model has {} inputs", inputs.len());
                let names = list(inputs.iter().map(|input| &input.name));
                return Err(
                    Failure::new(message).way_out(format!("give an .npz file with arrays named {names}"))
                );
            }
            (Arrays::Named(named), _) => named,
        };
        let position = |wanted: &str| named.iter().position(|(name, _)| name == wanted);
        let by_name = || inputs.iter().map(|input| position(&input.name)).collect();
        let by_position = || (0..inputs.len()).map(|index| position(&format!("in_{index}"))).collect();
        let only = || (named.len() == 1 && inputs.len() == 1).then(|| vec![0]);
        // Inputs that share a name cannot be told apart by it.
        let distinct = inputs.iter().map(|input| &input.name).collect::<HashSet<_>>().len() == inputs.len();
        let order: Option<Vec<usize>> = distinct.then(by_name).flatten().or_else(by_position).or_else(only);
        let Some(order) = order else {
            let message = format!("holds arrays named {}", list(named.iter().map(|(name, _)| name)));
            let names = list(inputs.iter().map(|input| &input.name));
            return Err(Failure::new(message).way_out(format!("expected are {names}, or in_0, in_1, …")));
        };
        let take = |index: usize| std::mem::replace(&mut named[index].1, Array::empty());
        Ok(order.into_iter().map(take).collect())
    }
}

impl Samples {
    /// Binds the arrays of a file to the model's inputs. The layouts are tried in order.
    pub(crate) fn bind(
        model: &Model<'_>,
        path: &Path,
        arrays: Arrays,
        layouts: &[Layout],
        quantize: bool,
    ) -> Result<Self, Failure> {
        let refuse = |failure: Failure| failure.file(path);
        let arrays = arrays.for_inputs(&model.inputs).map_err(refuse)?;
        if arrays.is_empty() {
            return Err(Failure::new("has no inputs, so samples mean nothing to it").file(model.path));
        }
        // An array without elements could claim any number of samples.
        if let Some(empty) = model.inputs.iter().find(|input| input.tensor.elements() == 0) {
            return Err(Failure::new(format!("input {} has no elements", empty.name)).file(model.path));
        }
        let fits = |layout: &Layout| {
            arrays
                .iter()
                .zip(&model.inputs)
                .all(|(array, input)| input.accepts(&array.shape, *layout).is_some())
        };
        let Some(&layout) = layouts.iter().find(|layout| fits(layout)) else {
            let wanted = layouts.first().copied().unwrap_or(Layout::Samples);
            return Err(refuse(wrong_shape(model, &arrays, wanted)));
        };
        let lead = layout.lead();
        let first = &arrays[0].shape;
        let (count, steps) = (first[0], if lead == 2 { first[1] } else { 1 });
        let batch_left_out = arrays
            .iter()
            .zip(&model.inputs)
            .all(|(array, input)| input.accepts(&array.shape, layout) == Some(true));
        let mut feeds = Vec::new();
        for (array, input) in arrays.into_iter().zip(&model.inputs) {
            if array.shape[..lead] != [count, steps][..lead] {
                let (wanted, found) = (&[count, steps][..lead], &array.shape[..lead]);
                let message = format!(
                    "input {} begins with axes {found:?}, input {} with {wanted:?}",
                    input.name, model.inputs[0].name
                );
                return Err(refuse(
                    Failure::new(message).way_out("give all inputs the same number of samples"),
                ));
            }
            feeds.push(Feed::new(array, input, quantize).map_err(refuse)?);
        }
        Ok(Samples { feeds, layout, count, steps, batch_left_out })
    }

    /// How often the model runs.
    pub(crate) fn runs(&self) -> usize {
        self.count.saturating_mul(self.steps)
    }

    /// The shape of an output array over all samples.
    pub(crate) fn output_shape(&self, output: &Port) -> Vec<usize> {
        let mut shape = [self.count, self.steps][..self.layout.lead()].to_vec();
        match output.tensor.shape() {
            [1, rest @ ..] if self.batch_left_out => shape.extend(rest.iter().map(|&dim| dim as usize)),
            whole => shape.extend(whole.iter().map(|&dim| dim as usize)),
        }
        shape
    }

    /// Writes the elements of an input in one run.
    pub(crate) fn fill(&self, input: usize, run: usize, bytes: &mut [u8]) {
        self.feeds[input].fill(run, bytes);
    }

    /// The real values of an input in one run, before any quantization.
    pub(crate) fn reals(&self, model: &Model<'_>, input: usize, run: usize) -> Vec<f64> {
        let (feed, port) = (&self.feeds[input], &model.inputs[input]);
        if feed.array.element == Element::Tensor(port.tensor.dtype) {
            port.reals(feed.bytes(run)).collect()
        } else {
            feed.array.element.reals(feed.bytes(run)).collect()
        }
    }

    /// Prepares one run: resets the state where a run begins anew, and writes the inputs.
    pub(crate) fn prepare(&self, run: usize, session: &mut Session<'_, '_>) -> Result<(), RunError> {
        if self.layout != Layout::Sequences || run.is_multiple_of(self.steps) {
            session.reset();
        }
        for (index, feed) in self.feeds.iter().enumerate() {
            feed.fill(run, session.input_bytes_mut(index)?);
        }
        Ok(())
    }

    /// Runs the model on everything and hands each run's number, its session and its duration to `each`.
    pub(crate) fn run(
        &self,
        model: &Model<'_>,
        session: &mut Session<'_, '_>,
        progress: &ProgressBar,
        mut each: impl FnMut(usize, &Session<'_, '_>, Duration) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = |error| model.run_failure(error);
        for run in 0..self.runs() {
            self.prepare(run, session).map_err(failed)?;
            let start = Instant::now();
            session.run().map_err(failed)?;
            let duration = start.elapsed();
            each(run, session, duration)?;
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(())
    }
}

impl Layout {
    /// Axes in front of the model's own.
    fn lead(self) -> usize {
        match self {
            Layout::Samples => 1,
            Layout::Sequences | Layout::Windows => 2,
        }
    }
}

impl Port {
    /// Whether an array of this shape fits the input: `Some(true)` when it does without the batch axis.
    fn accepts(&self, shape: &[usize], layout: Layout) -> Option<bool> {
        let sample = shape.get(layout.lead()..)?;
        let own = self.shape();
        match own.as_slice() {
            own if own == sample => Some(false),
            [1, rest @ ..] if rest == sample => Some(true),
            _ => None,
        }
    }

    /// `[N, 49, 10, 1] or [N, 1, 49, 10, 1]`.
    fn expected_shapes(&self, layout: Layout) -> String {
        let text = |shape: &[usize]| {
            let lead = if layout.lead() == 2 { "N, T" } else { "N" };
            let dims: String = shape.iter().map(|dim| format!(", {dim}")).collect();
            format!("[{lead}{dims}]")
        };
        let own = self.shape();
        match own.as_slice() {
            [1, rest @ ..] => format!("{} or {}", text(rest), text(&own)),
            own => text(own),
        }
    }
}

/// Says what shape is expected, and which flag would help.
fn wrong_shape(model: &Model<'_>, arrays: &[Array], layout: Layout) -> Failure {
    let wrong =
        arrays.iter().zip(&model.inputs).find(|(array, input)| input.accepts(&array.shape, layout).is_none());
    let Some((array, input)) = wrong else {
        return Failure::new("the arrays' shapes do not agree with one another");
    };
    let message = format!(
        "the array for input {} has shape {:?}; expected is {} of {}",
        input.name,
        array.shape,
        input.expected_shapes(layout),
        input.type_text()
    );
    let other = if layout == Layout::Samples { Layout::Sequences } else { Layout::Samples };
    let way_out = match (layout, input.accepts(&array.shape, other)) {
        (Layout::Samples, Some(_)) => "with --sequences the first two axes are sequence and step",
        (_, Some(_)) => "without --sequences the first axis is the sample",
        (Layout::Samples, None) => "the first axis counts samples",
        (_, None) => "the first two axes count sequences and steps",
    };
    Failure::new(message).way_out(way_out)
}

impl Feed {
    fn new(array: Array, input: &Port, quantize: bool) -> Result<Self, Failure> {
        let dtype = input.tensor.dtype;
        let direct = array.element == Element::Tensor(dtype);
        let conversion = match input.quantization() {
            Some((scale, zero_point)) if !direct => Quantize::new(dtype, scale, zero_point),
            _ => None,
        };
        let is_float = array.element == Element::Tensor(DType::F32);
        let convertible = quantize && is_float && conversion.is_some();
        if !(direct || convertible) {
            let message = format!(
                "the array for input {} is {}; expected is {}",
                input.name,
                array.element,
                input.type_text()
            );
            let way_out = match (array.element, &conversion) {
                (_, Some(_)) if is_float => "add --quantize-input to quantize real values".to_owned(),
                (_, Some(_)) => {
                    format!("store raw {dtype} values, or real values as float32 and add --quantize-input")
                }
                (_, None) => format!("store it with x.astype('{dtype}')"),
            };
            return Err(Failure::new(message).way_out(way_out));
        }
        let conversion = conversion.filter(|_| !direct);
        if conversion.is_some()
            && let Some(at) = array.reals().position(f64::is_nan)
        {
            let sample = at / (array.shape.iter().skip(1).product::<usize>()).max(1);
            let message = format!("the array for input {} has a NaN in sample {sample}", input.name);
            return Err(Failure::new(message).way_out("NaN cannot be quantized; replace it"));
        }
        let chunk = input.tensor.elements() * array.element.size();
        Ok(Feed { array, chunk, quantize: conversion })
    }

    /// The array's bytes of one run.
    fn bytes(&self, run: usize) -> &[u8] {
        self.array.bytes.get(run * self.chunk..(run + 1) * self.chunk).unwrap_or(&[])
    }

    /// Writes one run's elements into the model's input.
    fn fill(&self, run: usize, input: &mut [u8]) {
        let bytes = self.bytes(run);
        let Some(quantize) = self.quantize else {
            input.copy_from_slice(bytes);
            return;
        };
        for (real, stored) in bytes.as_chunks().0.iter().zip(input.chunks_exact_mut(quantize.bytes)) {
            let stored_bytes = quantize.apply(f32::from_le_bytes(*real)).to_le_bytes();
            stored.copy_from_slice(&stored_bytes[..quantize.bytes]);
        }
    }
}

impl Quantize {
    /// `None` for a type that real values cannot be quantized to.
    fn new(dtype: DType, scale: f32, zero_point: i32) -> Option<Self> {
        let range = match dtype {
            DType::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
            DType::U8 => (0.0, f64::from(u8::MAX)),
            DType::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
            DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            _ => return None,
        };
        Some(Quantize { scale, zero_point: f64::from(zero_point), range, bytes: dtype.size() })
    }

    /// `x / scale` in single precision, rounded half away from zero as TensorFlow Lite's quantize operator does,
    /// plus the zero point, clamped.
    fn apply(self, real: f32) -> i64 {
        let (low, high) = self.range;
        (f64::from((real / self.scale).round()) + self.zero_point).clamp(low, high) as i64
    }
}

/// Names for a message.
fn list<'n>(names: impl Iterator<Item = &'n String>) -> String {
    let names: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_values_are_rounded_half_away_from_zero_and_clamped() {
        let quantize = Quantize::new(DType::I8, 0.5, 3).unwrap();
        let cases = [(0.0, 3), (0.25, 4), (-0.25, 2), (0.24, 3), (1e9, 127), (f32::NEG_INFINITY, -128)];
        for (real, stored) in cases {
            assert_eq!(quantize.apply(real), stored, "{real}");
        }
        assert_eq!(Quantize::new(DType::U8, 1.0 / 255.0, 0).unwrap().apply(1.0), 255);
        assert!(Quantize::new(DType::F32, 1.0, 0).is_none());
    }
}
