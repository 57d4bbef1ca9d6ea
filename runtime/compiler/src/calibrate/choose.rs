//! Which features of a model are monitored.

use std::collections::HashSet;

use dunlin_artifact::baseline::{Part, Source};
use dunlin_artifact::writer::Feature;
use dunlin_artifact::{DType, Tensor, limits};
use dunlin_monitor::visit_values;

use super::{Data, Plan};
use crate::CompileError;

/// Up to so many elements of a tensor are monitored one by one.
const MOST_SINGLE: usize = 16;
/// Of a larger tensor about so many elements are looked at in one run.
const MOST_OBSERVED: usize = 1_024;
/// Most classes that are recognized as such without being told.
const MOST_CLASSES: usize = 1_024;
/// How far the sum of a classifier's scores may be from 1: quantized scores are rounded.
const SUM_TOLERANCE: f64 = 0.05;
/// Runs that are looked at to recognize a classifier.
const RECOGNIZED_BY: usize = 200;

/// What to monitor of one input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The tensor.
    pub source: Source,
    /// Only this element.
    pub element: Option<u32>,
    /// What of it. Several choices for one tensor add up.
    pub what: What,
}

/// What is monitored of a tensor.
///
/// Without a choice, a tensor of up to 16 elements is monitored element by element, a larger one and one of a streaming
/// model by the distribution of its values; an output whose values are shares that sum to 1 is a classifier's, and monitored by
/// its class and its confidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing.
    Nothing,
    /// All values in one distribution; of a large tensor every so many-th value.
    Values,
    /// Every element on its own.
    Elements,
    /// The position of the largest element.
    Class,
    /// The largest element.
    Confidence,
    /// Integers that stand for categories.
    Categories,
}

impl What {
    /// All, in the order of the documentation.
    pub const ALL: [What; 6] =
        [What::Nothing, What::Values, What::Elements, What::Class, What::Confidence, What::Categories];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            What::Nothing => "nothing",
            What::Values => "values",
            What::Elements => "elements",
            What::Class => "class",
            What::Confidence => "confidence",
            What::Categories => "categories",
        }
    }
}

/// What is monitored, in the order of inputs and outputs.
pub(crate) fn plans(data: &Data<'_>, choices: &[Choice]) -> Result<Vec<Plan>, CompileError> {
    let manifest = data.artifact.manifest().map_err(|error| CompileError::Malformed(error.to_string()))?;
    let names: Vec<&str> = manifest.io_names.split('\n').collect();
    let (inputs, outputs) = (data.artifact.inputs().len(), data.artifact.outputs().len());
    let named = names.len() == inputs + outputs;
    let name = |at: usize, side: &str, index: usize| match names.get(at) {
        Some(name) if named && !name.is_empty() => (*name).to_owned(),
        _ => format!("{side}_{index}"),
    };
    let all_inputs = (0..inputs).map(|index| (Source::Input(index as u16), name(index, "in", index)));
    let all_outputs =
        (0..outputs).map(|index| (Source::Output(index as u16), name(inputs + index, "out", index)));
    let tensors: Vec<(Source, String)> = all_inputs.chain(all_outputs).collect();
    if let Some(unknown) =
        choices.iter().find(|choice| tensors.iter().all(|(source, _)| *source != choice.source))
    {
        return Err(CompileError::Calibration(format!(
            "{} is to be monitored, but the model has {inputs} inputs and {outputs} outputs",
            describe(unknown.source)
        )));
    }
    let mut plans = Vec::new();
    for (source, name) in tensors {
        let mut chosen: Vec<Choice> =
            choices.iter().copied().filter(|choice| choice.source == source).collect();
        if chosen.is_empty() {
            let defaults = default(data, source).into_iter();
            chosen.extend(defaults.map(|what| Choice { source, element: None, what }));
        }
        for choice in chosen {
            plans.extend(plan(data, &choice, &name)?);
        }
    }
    Ok(plans)
}

/// What is monitored without a choice.
fn default(data: &Data<'_>, source: Source) -> Vec<What> {
    let Some((tensor, bytes)) = data.tensor(source) else { return Vec::new() };
    let elements = tensor.elements();
    if elements == 0 || tensor.dtype == DType::F16 {
        return Vec::new();
    }
    if matches!(source, Source::Output(_)) && is_classifier(&tensor, bytes) {
        return vec![What::Class, What::Confidence];
    }
    // The frames of a stream are many, and their elements alike.
    let streaming = data.artifact.states().len() > 0;
    vec![if elements <= MOST_SINGLE && !streaming { What::Elements } else { What::Values }]
}

/// Whether the values of every run are shares that sum to 1.
fn is_classifier(tensor: &Tensor, bytes: &[u8]) -> bool {
    if !(2..=MOST_CLASSES).contains(&tensor.elements()) {
        return false;
    }
    bytes.chunks_exact(tensor.bytes().max(1)).take(RECOGNIZED_BY).all(|run| {
        let (mut sum, mut shares) = (0.0, true);
        visit_values(tensor, Part::Elements { stride: 1 }, run, |value| {
            shares &= (0.0..=1.0).contains(&value);
            sum += f64::from(value);
        });
        shares && (sum - 1.0).abs() <= SUM_TOLERANCE
    })
}

/// The features that one choice means.
fn plan(data: &Data<'_>, choice: &Choice, name: &str) -> Result<Vec<Plan>, CompileError> {
    let Some((tensor, _)) = data.tensor(choice.source) else { return Ok(Vec::new()) };
    let elements = tensor.elements();
    let refuse =
        |what: String| Err(CompileError::Calibration(format!("{} ({name}) {what}", describe(choice.source))));
    if choice.what == What::Nothing {
        return Ok(Vec::new());
    }
    if elements == 0 || tensor.dtype == DType::F16 {
        return refuse("has no elements that can be monitored".into());
    }
    if let Some(element) = choice.element
        && element as usize >= elements
    {
        return refuse(format!("has no element {element}; it has {elements}"));
    }
    let integers = !matches!(tensor.dtype, DType::F32 | DType::F16);
    if choice.what == What::Categories && !integers {
        return refuse(format!("holds {}; categories are integers", tensor.dtype));
    }
    let feature = |suffix: &str, part: Part| Plan {
        name: format!("{name}{suffix}"),
        source: choice.source,
        part,
        categories: choice.what == What::Categories,
    };
    let single = |element: u32| {
        // The only element needs no number.
        let suffix = if elements == 1 { String::new() } else { format!("[{element}]") };
        feature(&suffix, Part::Element(element))
    };
    Ok(match (choice.what, choice.element) {
        (What::Values | What::Elements | What::Categories, Some(element)) => vec![single(element)],
        (What::Values | What::Categories, None) if elements == 1 => vec![single(0)],
        (What::Values | What::Categories, None) => {
            vec![feature("", Part::Elements { stride: stride(&tensor) })]
        }
        (What::Elements, None) if elements > limits::MAX_FEATURES => {
            return refuse(format!("has {elements} elements; at most {} features", limits::MAX_FEATURES));
        }
        (What::Elements, None) => (0..elements as u32).map(single).collect(),
        (What::Class | What::Confidence, Some(_)) => {
            return refuse("has its class and confidence over all elements, not over one".into());
        }
        (What::Class, None) => vec![feature(".class", Part::ArgMax)],
        (What::Confidence, None) => vec![feature(".confidence", Part::Max)],
        (What::Nothing, _) => Vec::new(),
    })
}

/// The smallest step that looks at no more than about [`MOST_OBSERVED`] elements and has no divisor in common with any
/// axis, so that all channels and columns have their turn.
fn stride(tensor: &Tensor) -> u32 {
    fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    let least = tensor.elements().div_ceil(MOST_OBSERVED).max(1) as u32;
    let fair = |stride: &u32| tensor.shape().iter().all(|&dim| gcd(*stride, dim) == 1);
    (least..).find(fair).unwrap_or(least)
}

/// `input 0`.
fn describe(source: Source) -> String {
    match source {
        Source::Input(index) => format!("input {index}"),
        Source::Output(index) => format!("output {index}"),
        Source::Application => "the application".into(),
    }
}

/// Shortens names to what the format allows and numbers those that occur twice.
pub(crate) fn make_names_unique(features: &mut [Feature]) {
    let mut taken = HashSet::new();
    for feature in features {
        let shortened = |room: usize| {
            let end =
                (0..=room.min(feature.name.len())).rev().find(|&end| feature.name.is_char_boundary(end));
            feature.name[..end.unwrap_or(0)].to_owned()
        };
        let plain = std::iter::once(shortened(limits::MAX_FEATURE_NAME));
        let numbered = (2..).map(|number: u32| {
            let suffix = format!("#{number}");
            shortened(limits::MAX_FEATURE_NAME - suffix.len()) + &suffix
        });
        let unique = plain.chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default();
        taken.insert(unique.clone());
        feature.name = unique;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_artifact::Place;
    use dunlin_artifact::writer::Bins;

    #[test]
    fn strides_visit_every_channel() {
        let stride_of = |shape: &[u32]| {
            let tensor = Tensor::new(DType::I8, shape, Place::Arena(0), 1.0, 0).expect("rank");
            let stride = stride(&tensor);
            assert!(tensor.elements().div_ceil(stride as usize) <= MOST_OBSERVED, "{shape:?}");
            stride
        };
        assert_eq!(stride_of(&[1, 49, 10, 1]), 1);
        assert_eq!(stride_of(&[1, 32, 32, 3]), 5);
        assert_eq!(stride_of(&[1, 96, 96, 3]), 29);
        assert_eq!(stride_of(&[0]), 1);
    }

    #[test]
    fn names_fit_and_differ() {
        let named = |name: String| Feature {
            name,
            source: Source::Application,
            part: Part::Element(0),
            bins: Bins::Classes { counts: vec![] },
            missing: 0,
        };
        let long = "ü".repeat(100);
        let mut features = ["x", "x", "x#2", &long, &long].map(|name| named(name.to_owned()));
        make_names_unique(&mut features);
        let names: HashSet<&str> = features.iter().map(|feature| feature.name.as_str()).collect();
        assert_eq!(names.len(), 5, "{names:?}");
        assert!(names.contains("x") && names.contains("x#2") && names.iter().all(|name| name.len() <= 128));
    }
}
