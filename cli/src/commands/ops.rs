//! `dunlin ops`: the operators that models may use.

use dunlin_artifact::Kernel::{self, *};
use dunlin_runtime::ALL_KERNELS;
use serde::Serialize;

use crate::error::Failure;
use crate::output::Outcome;

/// List the supported operators as a Markdown table.
///
/// For every operator of TensorFlow Lite the element types it is supported for and the kernels that it may need; a
/// firmware links a kernel only if its model needs it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dunlin ops > operators.md
  dunlin ops --json | jq -r '.operators[].name'")]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Report {
    operators: Vec<Operator>,
}

#[derive(Serialize)]
struct Operator {
    name: &'static str,
    types: Vec<&'static str>,
    kernels: Vec<&'static str>,
}

pub(crate) fn run(_: &Args) -> Result<Outcome, Failure> {
    let operators = dunlin_compiler::supported_operators().iter().map(|&name| operator(name)).collect();
    let report = Report { operators };
    let mut text = "| operator | element types | kernels |\n| --- | --- | --- |\n".to_owned();
    for Operator { name, types, kernels } in &report.operators {
        let kernels: Vec<String> = kernels.iter().map(|kernel| format!("`{kernel}`")).collect();
        let name = name
            .strip_prefix("CUSTOM:")
            .map_or_else(|| format!("`{name}`"), |name| format!("`{name}` (custom)"));
        text += &format!("| {name} | {} | {} |\n", types.join(", "), kernels.join(", "));
    }
    text +=
        "\nuint8 models are computed as int8 wherever TensorFlow Lite has a uint8 kernel for the operator.\n";
    Ok(Outcome::new(&report, text))
}

fn operator(name: &'static str) -> Operator {
    let kernels = kernels(name).iter().filter(|kernel| ALL_KERNELS & kernel.bit() != 0);
    let mut types: Vec<&str> = Vec::new();
    for kernel in kernels.clone() {
        let text = element_types(*kernel);
        if !types.contains(&text) {
            types.push(text);
        }
    }
    match name {
        "QUANTIZE" => types = vec!["float32 to int8, uint8 or int16", "between int8, uint8, int16 and int32"],
        _ if types.is_empty() => types = vec!["any; done by the compiler"],
        _ if types.contains(&"any") => types = vec!["any"],
        _ => {}
    }
    Operator { name, types, kernels: kernels.map(|kernel| kernel.name()).collect() }
}

/// The kernels that an operator of the source may become.
fn kernels(operator: &str) -> &'static [Kernel] {
    match operator {
        "CALL_ONCE" | "VAR_HANDLE" => &[],
        "ASSIGN_VARIABLE" | "BATCH_TO_SPACE_ND" | "BROADCAST_TO" | "DEPTH_TO_SPACE" | "EXPAND_DIMS"
        | "MIRROR_PAD" | "READ_VARIABLE" | "RESHAPE" | "SLICE" | "SPACE_TO_DEPTH" | "SPLIT" | "SPLIT_V"
        | "SQUEEZE" | "STRIDED_SLICE" | "TRANSPOSE" | "UNPACK" => &[Copy],
        // Operands of another scale than the result are brought to it by a table.
        "CONCATENATION" | "PACK" => &[Copy, Lut8],
        "PAD" | "PADV2" | "SPACE_TO_BATCH_ND" => &[Copy, Fill],
        "GATHER" => &[Gather],

        "CONV_2D" => &[Conv2dI8, Conv2dI16, Conv2dF32, Conv2dHybrid],
        "DEPTHWISE_CONV_2D" => &[DepthwiseI8, DepthwiseI16, DepthwiseF32, DepthwiseHybrid],
        "FULLY_CONNECTED" => &[FullyConnectedI8, FullyConnectedI16, FullyConnectedF32, FullyConnectedHybrid],
        "TRANSPOSE_CONV" => &[TransposeConvI8, TransposeConvI16, TransposeConvF32],
        "AVERAGE_POOL_2D" => &[AveragePoolI8, AveragePoolI16, AveragePoolF32],
        "MAX_POOL_2D" => &[MaxPoolI8, MaxPoolI16, MaxPoolF32],

        "ABS" | "LEAKY_RELU" | "RELU" | "RELU6" | "RSQRT" => &[Lut8, UnaryI16, UnaryF32],
        "LOGISTIC" | "TANH" => &[Lut8, SigmoidI16, ExponentialF32],
        "HARD_SWISH" | "RELU_N1_TO_1" => &[Lut8, UnaryF32],
        "ELU" => &[Lut8, ExponentialF32],
        "CEIL" | "FLOOR" | "NEG" | "ROUND" | "SQRT" | "SQUARE" => &[UnaryF32],
        "EXP" | "LOG" => &[ExponentialF32],
        "COS" | "SIN" => &[TrigonometricF32],
        "SOFTMAX" => &[SoftmaxI8, SoftmaxI8I16, SoftmaxI16, SoftmaxF32],
        "LOG_SOFTMAX" => &[LogSoftmaxI8, SoftmaxF32],
        "L2_NORMALIZATION" => &[L2NormI8, L2NormF32],
        "PRELU" => &[PreluI8, PreluI16, PreluF32],

        "ADD" | "SUB" => &[AddI8, AddI16, ArithI32, ArithI64, ArithF32],
        "MUL" => &[MulI8, MulI16, ArithI32, ArithI64, ArithF32],
        "DIV" => &[DivI8, ArithI32, ArithF32],
        "SQUARED_DIFFERENCE" => &[SquaredDifferenceI8, SquaredDifferenceI16, ArithI32, ArithF32],
        "MAXIMUM" | "MINIMUM" => &[MinMaxI8, MinMaxI16, ArithI32, ArithI64, ArithF32],
        "MEAN" | "SUM" => &[MeanI8, MeanI16, ReduceF32],
        "REDUCE_MAX" | "REDUCE_MIN" => &[ReduceMinMaxI8, ReduceMinMaxI16, ReduceI32, ReduceF32],
        "ARG_MAX" | "ARG_MIN" => &[ArgMinMaxI8, ArgMinMaxF32],

        "QUANTIZE" => &[Kernel::Quantize, Lut8, Requantize],
        "DEQUANTIZE" => &[Dequantize],
        "CAST" => &[Cast],
        "RESIZE_BILINEAR" => &[ResizeBilinearI8, ResizeBilinearU8, ResizeBilinearF32],
        "RESIZE_NEAREST_NEIGHBOR" => &[ResizeNearest],

        "SVDF" => &[SvdfI8, SvdfF32],
        "UNIDIRECTIONAL_SEQUENCE_LSTM" => &[LstmI8, LstmI16, LstmF32],
        "CUSTOM:SignalEnergy" => &[SignalEnergy],
        "CUSTOM:SignalFftAutoScale" => &[SignalFftAutoScale],
        "CUSTOM:SignalFilterBank" => &[SignalFilterBank],
        "CUSTOM:SignalFilterBankLog" => &[SignalFilterBankLog],
        "CUSTOM:SignalFilterBankSpectralSubtraction" => &[SignalSpectralSubtraction],
        "CUSTOM:SignalFilterBankSquareRoot" => &[SignalFilterBankSquareRoot],
        "CUSTOM:SignalPCAN" => &[SignalPcan],
        "CUSTOM:SignalRfft" => &[SignalRfft, SignalRfftI32, SignalRfftF32],
        "CUSTOM:SignalWindow" => &[SignalWindow],
        _ => &[],
    }
}

/// The element types that a kernel works on.
fn element_types(kernel: Kernel) -> &'static str {
    match kernel {
        Copy | Fill | Gather | ResizeNearest => "any",
        SoftmaxI8I16 => "int8 to int16",
        Kernel::Quantize => "float32 to int8, uint8 or int16",
        Dequantize => "int8, uint8, int16 or constant float16 to float32",
        Requantize => "between int8, int16 and int32",
        Cast => "between all but float16 and uint64",
        SignalEnergy | SignalFftAutoScale | SignalRfft | SignalWindow => "int16",
        SignalFilterBank | SignalFilterBankLog | SignalPcan | SignalSpectralSubtraction => "uint32",
        SignalFilterBankSquareRoot => "uint64",
        SignalRfftI32 => "int32",
        kernel => match kernel.name().rsplit('_').next() {
            Some("hybrid") => "float32 with int8 weights",
            Some("f32") => "float32",
            Some("i64") => "int64",
            Some("i32") => "int32",
            Some("i16") => "int16",
            _ => "int8",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_of_the_compiler_has_its_kernels() {
        let done_by_the_compiler = ["CALL_ONCE", "VAR_HANDLE"];
        for name in dunlin_compiler::supported_operators() {
            assert_eq!(kernels(name).is_empty(), done_by_the_compiler.contains(name), "{name}");
        }
    }

    #[test]
    fn every_kernel_of_the_engine_serves_an_operator() {
        let used = dunlin_compiler::supported_operators().iter().flat_map(|name| kernels(name));
        let used = used.fold(0, |set, kernel| set | kernel.bit());
        for kernel in Kernel::ALL {
            assert_eq!(used & kernel.bit() != 0, ALL_KERNELS & kernel.bit() != 0, "{}", kernel.name());
        }
    }
}
