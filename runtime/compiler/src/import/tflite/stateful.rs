//! Operators that keep something from run to run: LSTM, SVDF, and the audio front end among the custom operators.

use dunlin_tflite_schema as schema;

use super::Importer;
use super::operators::{OPERATORS, Source, activation};
use crate::flexbuffer::Options;
use crate::graph::{DType, Op, SignalOp, State, StateId, ValueId};

/// An operator with the operands that it computes with, or why it cannot be read.
type Node = Result<(Op, Vec<Option<ValueId>>), String>;

/// Most bytes of the states that variable tensors hold. Bounds what a small hostile file can make the compiler allocate.
const MAX_STATE_BYTES: usize = 1 << 24;

impl<'a> Importer<'a> {
    pub(super) fn lstm(&mut self, source: &Source<'a>) -> Node {
        let options = source.operator.builtin_options_as_unidirectional_sequence_lstmoptions();
        let options = options.ok_or("options are missing")?;
        let activation = options.fused_activation_function();
        if activation != schema::ActivationFunctionType::TANH {
            let name = activation.variant_name().unwrap_or("unknown");
            return Err(format!("activation {name} of the cell gate is not supported; supported is TANH"));
        }
        let mut operands = source.inputs.clone();
        let mut state = |at: usize, what: &str| {
            let id = operands
                .get_mut(at)
                .and_then(Option::take)
                .ok_or_else(|| format!("the {what} is missing"))?;
            self.variable_tensor(id)
        };
        let (hidden, cell) = (state(18, "hidden state")?, state(19, "cell state")?);
        let (time_major, cell_clip) = (options.time_major(), options.cell_clip());
        Ok((Op::Lstm { time_major, cell_clip, hidden, cell }, operands))
    }

    pub(super) fn svdf(&mut self, source: &Source<'a>) -> Node {
        let options = source.operator.builtin_options_as_svdfoptions().ok_or("options are missing")?;
        let rank = usize::try_from(options.rank()).ok().filter(|&rank| rank > 0);
        let rank = rank.ok_or_else(|| format!("a rank of {} is not possible", options.rank()))?;
        let activation = activation(options.fused_activation_function())?;
        let state = source.inputs.get(4).copied().flatten().ok_or("the state is missing")?;
        let state = self.variable_tensor(state)?;
        Ok((Op::Svdf { rank, activation, state }, source.inputs.iter().take(4).copied().collect()))
    }

    /// The state that a variable tensor holds. A tensor of int8 starts from its zero point, any other from zeros.
    fn variable_tensor(&mut self, id: ValueId) -> Result<StateId, String> {
        let tensor = self.subgraph.tensors().filter(|all| id < all.len()).map(|all| all.get(id));
        if !tensor.is_some_and(|tensor| tensor.is_variable()) {
            return Err(format!("the state (tensor {id}) must be a variable tensor"));
        }
        if let Some(state) = self.handle(Some(id)) {
            return Ok(state);
        }
        let value = self.graph.values[id].clone();
        let bytes = value.bytes();
        let zero_point =
            value.quant.as_ref().and_then(|quant| quant.zero_points.first()).copied().unwrap_or(0);
        let others = self.graph.states.iter().filter_map(|state| state.initial.as_ref());
        if others.map(|initial| initial.len()).sum::<usize>() + bytes > MAX_STATE_BYTES {
            return Err(format!("the states are larger than {MAX_STATE_BYTES} bytes"));
        }
        let fill = if value.dtype == DType::I8 { zero_point as u8 } else { 0 };
        let initial = Some(vec![fill; bytes].into());
        let (name, dtype, shape, quant) = (value.name, value.dtype, value.shape, value.quant);
        self.graph.states.push(State { name, dtype, shape, quant, initial });
        let state = self.graph.states.len() - 1;
        self.handles.insert(id, state);
        Ok(state)
    }

    /// A custom operator: `CUSTOM:` and its name in the file.
    pub(super) fn custom(&mut self, name: &str, source: &Source<'a>) -> Node {
        if !OPERATORS.contains(&name) {
            return Err(format!("{name} is not supported; supported are {}", OPERATORS.join(", ")));
        }
        let bytes = source.operator.custom_options().map_or(&[][..], |options| options.bytes());
        let options = Options::read(bytes).ok_or("the custom options are no FlexBuffers map")?;
        let op = match name {
            "CUSTOM:SignalWindow" => SignalOp::Window { shift: int(&options, "shift")? },
            "CUSTOM:SignalFftAutoScale" => SignalOp::FftAutoScale,
            "CUSTOM:SignalRfft" => SignalOp::Rfft { length: int(&options, "fft_length")? },
            "CUSTOM:SignalEnergy" => {
                SignalOp::Energy { start: int(&options, "start_index")?, end: int(&options, "end_index")? }
            }
            "CUSTOM:SignalFilterBank" => {
                self.check_channels(&options, source)?;
                SignalOp::FilterBank
            }
            "CUSTOM:SignalFilterBankSquareRoot" => SignalOp::FilterBankSquareRoot,
            "CUSTOM:SignalFilterBankSpectralSubtraction" => self.spectral_subtraction(&options, source)?,
            "CUSTOM:SignalPCAN" => SignalOp::Pcan { snr_shift: int(&options, "snr_shift")? },
            _ => SignalOp::FilterBankLog {
                correction_bits: int(&options, "input_correction_bits")?,
                output_scale: int(&options, "output_scale")?,
            },
        };
        Ok((Op::Signal(op), source.inputs.clone()))
    }

    fn spectral_subtraction(&mut self, options: &Options, source: &Source<'a>) -> Result<SignalOp, String> {
        self.check_channels(options, source)?;
        let output = *source.outputs.first().ok_or("the result is missing")?;
        let value = &self.graph.values[output];
        let (name, shape) = (format!("{} (noise estimate)", value.name), value.shape.clone());
        self.graph.states.push(State { name, dtype: DType::U32, shape, quant: None, initial: None });
        Ok(SignalOp::SpectralSubtraction {
            state: self.graph.states.len() - 1,
            smoothing: int(options, "smoothing")?,
            one_minus_smoothing: int(options, "one_minus_smoothing")?,
            alternate_smoothing: int(options, "alternate_smoothing")?,
            alternate_one_minus_smoothing: int(options, "alternate_one_minus_smoothing")?,
            min_signal_remaining: int(options, "min_signal_remaining")?,
            smoothing_bits: int(options, "smoothing_bits")?,
            spectral_subtraction_bits: int(options, "spectral_subtraction_bits")?,
            clamping: int::<u8>(options, "clamping")? != 0,
        })
    }

    /// The number of channels stands in the options and in the shape of the result.
    fn check_channels(&self, options: &Options, source: &Source<'a>) -> Result<(), String> {
        let stated: usize = int(options, "num_channels")?;
        let output = *source.outputs.first().ok_or("the result is missing")?;
        let actual = self.graph.values[output].elements();
        if stated == actual {
            return Ok(());
        }
        Err(format!("the result has {actual} elements, but the option num_channels is {stated}"))
    }
}

/// An integer option.
fn int<T: TryFrom<i64>>(options: &Options, key: &str) -> Result<T, String> {
    let value =
        options.int(key).ok_or_else(|| format!("the custom option {key} is missing or no integer"))?;
    T::try_from(value).map_err(|_| format!("the custom option {key} cannot be {value}"))
}
