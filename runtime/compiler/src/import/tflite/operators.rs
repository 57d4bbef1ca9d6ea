//! TensorFlow Lite's operators as operators of the graph.

use dunlin_tflite_schema as schema;
use schema::BuiltinOperator as Code;

use super::operands::{normal_axis, size, sizes};
use super::{Importer, MAX_ITEMS, malformed};
use crate::CompileError;
use crate::graph::{
    Activation, BinaryOp, DType, MirrorMode, Node, Op, ReduceOp, State, StateId, UnaryOp, ValueId,
};

/// Source operators that can be compiled; the README's table is made from this list.
pub const OPERATORS: &[&str] = &[
    "ABS",
    "ADD",
    "ARG_MAX",
    "ARG_MIN",
    "ASSIGN_VARIABLE",
    "AVERAGE_POOL_2D",
    "BATCH_TO_SPACE_ND",
    "BROADCAST_TO",
    "CALL_ONCE",
    "CAST",
    "CEIL",
    "CONCATENATION",
    "CONV_2D",
    "COS",
    "DEPTHWISE_CONV_2D",
    "DEPTH_TO_SPACE",
    "DEQUANTIZE",
    "DIV",
    "ELU",
    "EXP",
    "EXPAND_DIMS",
    "FLOOR",
    "FULLY_CONNECTED",
    "GATHER",
    "HARD_SWISH",
    "L2_NORMALIZATION",
    "LEAKY_RELU",
    "LOG",
    "LOGISTIC",
    "LOG_SOFTMAX",
    "MAXIMUM",
    "MAX_POOL_2D",
    "MEAN",
    "MINIMUM",
    "MIRROR_PAD",
    "MUL",
    "NEG",
    "PACK",
    "PAD",
    "PADV2",
    "PRELU",
    "QUANTIZE",
    "READ_VARIABLE",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    "ROUND",
    "RSQRT",
    "SIN",
    "SLICE",
    "SOFTMAX",
    "SPACE_TO_BATCH_ND",
    "SPACE_TO_DEPTH",
    "SPLIT",
    "SPLIT_V",
    "SQRT",
    "SQUARE",
    "SQUARED_DIFFERENCE",
    "SQUEEZE",
    "STRIDED_SLICE",
    "SUB",
    "SUM",
    "SVDF",
    "TANH",
    "TRANSPOSE",
    "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNPACK",
    "VAR_HANDLE",
    "CUSTOM:SignalEnergy",
    "CUSTOM:SignalFftAutoScale",
    "CUSTOM:SignalFilterBank",
    "CUSTOM:SignalFilterBankLog",
    "CUSTOM:SignalFilterBankSpectralSubtraction",
    "CUSTOM:SignalFilterBankSquareRoot",
    "CUSTOM:SignalPCAN",
    "CUSTOM:SignalRfft",
    "CUSTOM:SignalWindow",
];

/// One operator of the file while it is read.
pub(super) struct Source<'a> {
    pub(super) operator: schema::Operator<'a>,
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) outputs: Vec<ValueId>,
}

/// An operator of the graph with the operands that are left when the constant ones have been read.
pub(super) type Parsed = (Op, Vec<Option<ValueId>>);

/// Why an operator cannot be read: a sentence for the user.
pub(super) type Read<T> = Result<T, String>;

impl<'a> Importer<'a> {
    pub(super) fn read_operators(&mut self) -> Result<(), CompileError> {
        let Some(operators) = self.subgraph.operators() else { return Ok(()) };
        if operators.len() > MAX_ITEMS {
            return Err(malformed(format!(
                "{} operators; at most {MAX_ITEMS} are supported",
                operators.len()
            )));
        }
        let mut known: Vec<bool> = self.graph.values.iter().map(|value| value.data.is_some()).collect();
        self.graph.inputs.iter().for_each(|&id| known[id] = true);
        for (index, operator) in operators.iter().enumerate() {
            let code = self.operator_code(operator)?;
            let name = self.operator_name(operator, code);
            let source = self.source(index, operator)?;
            let node = Node {
                op: Op::Reshape,
                inputs: source.inputs.clone(),
                outputs: source.outputs.clone(),
                index,
                name: name.clone(),
            };
            let read = match code {
                Code::CALL_ONCE => {
                    self.call_once(operator)?;
                    Ok(None)
                }
                Code::VAR_HANDLE => {
                    self.var_handle(operator)?;
                    Ok(None)
                }
                Code::READ_VARIABLE => self.read_variable(&source)?,
                Code::ASSIGN_VARIABLE => self.assign_variable(&source)?,
                _ => self.node(code, &name, &source),
            };
            let read = read.map_err(|reason| CompileError::Unsupported {
                index,
                operator: name,
                tensors: self.graph.describe(&node),
                reason,
            })?;
            let Some((op, inputs)) = read else { continue };
            let node = Node { op, inputs, ..node };
            self.check_order(&node, &mut known)?;
            self.graph.nodes.push(node);
        }
        match self.graph.outputs.iter().find(|&&id| !known[id]) {
            Some(id) => Err(malformed(format!("output {id} is never computed"))),
            None => Ok(()),
        }
    }

    /// Every operand must be known before it is used, and every value computed once.
    fn check_order(&self, node: &Node, known: &mut [bool]) -> Result<(), CompileError> {
        let at = |id: ValueId, what: &str| {
            malformed(format!("operator {} ({}): tensor {id} {what}", node.index, node.name))
        };
        if let Some(&id) = node.inputs.iter().flatten().find(|&&id| !known[id]) {
            return Err(at(id, "is used before it is computed"));
        }
        for &id in &node.outputs {
            if known[id] {
                return Err(at(id, "is computed twice"));
            }
            known[id] = true;
        }
        Ok(())
    }

    fn source(&self, index: usize, operator: schema::Operator<'a>) -> Result<Source<'a>, CompileError> {
        let mut source = Source { operator, inputs: vec![], outputs: vec![] };
        for id in operator.inputs().iter().flatten() {
            let missing = || malformed(format!("operator {index}: tensor {id} does not exist"));
            source.inputs.push(if id == -1 { None } else { Some(self.value_id(id).ok_or_else(missing)?) });
        }
        for id in operator.outputs().iter().flatten() {
            let missing = || malformed(format!("operator {index}: tensor {id} does not exist"));
            source.outputs.push(self.value_id(id).ok_or_else(missing)?);
        }
        Ok(source)
    }

    pub(super) fn operator_code(&self, operator: schema::Operator<'a>) -> Result<Code, CompileError> {
        let codes = self.model.operator_codes();
        let index = operator.opcode_index() as usize;
        let code = codes.filter(|all| index < all.len()).map(|all| all.get(index));
        let code = code.ok_or_else(|| malformed(format!("operator code {index} does not exist")))?;
        // Old files have the number in the narrow field only.
        Ok(Code(code.builtin_code().0.max(i32::from(code.deprecated_builtin_code()))))
    }

    fn operator_name(&self, operator: schema::Operator<'a>, code: Code) -> String {
        if code == Code::CUSTOM {
            let codes = self.model.operator_codes();
            let custom = codes.and_then(|all| all.get(operator.opcode_index() as usize).custom_code());
            return format!("CUSTOM:{}", custom.unwrap_or("?"));
        }
        code.variant_name().map_or_else(|| format!("operator code {}", code.0), str::to_owned)
    }

    /// Adds a variable that has no shape yet.
    pub(super) fn add_state(&mut self, name: String) -> StateId {
        self.graph.states.push(State { name, dtype: DType::I8, shape: vec![], quant: None, initial: None });
        self.graph.states.len() - 1
    }

    fn read_variable(&mut self, source: &Source<'a>) -> Result<Read<Option<Parsed>>, CompileError> {
        let handle = source.inputs.first().copied().flatten();
        let (Some(state), Some(&output)) = (self.handle(handle), source.outputs.first()) else {
            return Ok(Err("the variable has no handle in this graph".into()));
        };
        self.shape_variable(state, output)?;
        Ok(Ok(Some((Op::ReadVariable(state), vec![]))))
    }

    fn assign_variable(&mut self, source: &Source<'a>) -> Result<Read<Option<Parsed>>, CompileError> {
        let handle = source.inputs.first().copied().flatten();
        let (Some(state), Some(Some(value))) = (self.handle(handle), source.inputs.get(1).copied()) else {
            return Ok(Err("the variable has no handle in this graph".into()));
        };
        self.shape_variable(state, value)?;
        Ok(Ok(Some((Op::AssignVariable(state), vec![Some(value)]))))
    }

    /// The operator and the operands that remain after the constant ones have been read.
    fn node(&mut self, code: Code, name: &str, source: &Source<'a>) -> Read<Option<Parsed>> {
        let all = || source.inputs.clone();
        let first = || source.inputs.iter().take(1).copied().collect::<Vec<_>>();
        let unary = |op: UnaryOp| Ok(Some((Op::Unary(op), first())));
        let o = source.operator;
        Ok(Some(match code {
            Code::CONV_2D => {
                let p = o.builtin_options_as_conv_2_doptions().ok_or("options are missing")?;
                let kernel = self.kernel_size(source)?;
                let stride = sizes([p.stride_h(), p.stride_w()])?;
                let dilation = sizes([p.dilation_h_factor(), p.dilation_w_factor()])?;
                let window = self.window(source, 0, kernel, stride, dilation, p.padding())?;
                let narrow_sums = p.quantized_bias_type() == schema::TensorType::INT32;
                (
                    Op::Conv2d {
                        window,
                        activation: activation(p.fused_activation_function())?,
                        narrow_sums,
                    },
                    all(),
                )
            }
            Code::DEPTHWISE_CONV_2D => {
                let p = o.builtin_options_as_depthwise_conv_2_doptions().ok_or("options are missing")?;
                let kernel = self.kernel_size(source)?;
                let stride = sizes([p.stride_h(), p.stride_w()])?;
                let dilation = sizes([p.dilation_h_factor(), p.dilation_w_factor()])?;
                let window = self.window(source, 0, kernel, stride, dilation, p.padding())?;
                (
                    Op::DepthwiseConv2d { window, activation: activation(p.fused_activation_function())? },
                    all(),
                )
            }
            Code::TRANSPOSE_CONV => {
                let p = o.builtin_options_as_transpose_conv_options().ok_or("options are missing")?;
                let kernel = self.kernel_size(source)?;
                let stride = sizes([p.stride_h(), p.stride_w()])?;
                let window = self.transposed_window(source, kernel, stride, p.padding())?;
                let operands = [2, 1, 3].map(|at| source.inputs.get(at).copied().flatten()).to_vec();
                (
                    Op::TransposeConv2d { window, activation: activation(p.fused_activation_function())? },
                    operands,
                )
            }
            Code::FULLY_CONNECTED => {
                let p = o.builtin_options_as_fully_connected_options().ok_or("options are missing")?;
                if p.weights_format() != schema::FullyConnectedOptionsWeightsFormat::DEFAULT {
                    return Err(
                        "shuffled weights are not supported; convert the model with default weights".into()
                    );
                }
                let activation = activation(p.fused_activation_function())?;
                let asymmetric_inputs = p.asymmetric_quantize_inputs();
                let narrow_sums = p.quantized_bias_type() == schema::TensorType::INT32;
                (Op::FullyConnected { activation, asymmetric_inputs, narrow_sums }, all())
            }
            Code::AVERAGE_POOL_2D | Code::MAX_POOL_2D => {
                let p = o.builtin_options_as_pool_2_doptions().ok_or("options are missing")?;
                let size = sizes([p.filter_height(), p.filter_width()])?;
                let stride = sizes([p.stride_h(), p.stride_w()])?;
                let window = self.window(source, 0, size, stride, [1, 1], p.padding())?;
                let activation = activation(p.fused_activation_function())?;
                match code {
                    Code::AVERAGE_POOL_2D => (Op::AveragePool2d { window, size, activation }, all()),
                    _ => (Op::MaxPool2d { window, size, activation }, all()),
                }
            }
            Code::ADD => (
                binary(
                    BinaryOp::Add,
                    o.builtin_options_as_add_options().map(|p| p.fused_activation_function()),
                )?,
                all(),
            ),
            Code::SUB => (
                binary(
                    BinaryOp::Sub,
                    o.builtin_options_as_sub_options().map(|p| p.fused_activation_function()),
                )?,
                all(),
            ),
            Code::MUL => (
                binary(
                    BinaryOp::Mul,
                    o.builtin_options_as_mul_options().map(|p| p.fused_activation_function()),
                )?,
                all(),
            ),
            Code::DIV => (
                binary(
                    BinaryOp::Div,
                    o.builtin_options_as_div_options().map(|p| p.fused_activation_function()),
                )?,
                all(),
            ),
            Code::MINIMUM => (binary(BinaryOp::Minimum, None)?, all()),
            Code::MAXIMUM => (binary(BinaryOp::Maximum, None)?, all()),
            Code::SQUARED_DIFFERENCE => (binary(BinaryOp::SquaredDifference, None)?, all()),
            Code::ABS => return unary(UnaryOp::Abs),
            Code::CEIL => return unary(UnaryOp::Ceil),
            Code::COS => return unary(UnaryOp::Cos),
            Code::ELU => return unary(UnaryOp::Elu),
            Code::EXP => return unary(UnaryOp::Exp),
            Code::FLOOR => return unary(UnaryOp::Floor),
            Code::HARD_SWISH => return unary(UnaryOp::HardSwish),
            Code::LEAKY_RELU => {
                let p = o.builtin_options_as_leaky_relu_options().ok_or("options are missing")?;
                return unary(UnaryOp::LeakyRelu { alpha: p.alpha() });
            }
            Code::LOG => return unary(UnaryOp::Log),
            Code::LOGISTIC => return unary(UnaryOp::Logistic),
            Code::NEG => return unary(UnaryOp::Neg),
            Code::RELU => return unary(UnaryOp::Relu),
            Code::RELU6 => return unary(UnaryOp::Relu6),
            Code::RELU_N1_TO_1 => return unary(UnaryOp::ReluN1To1),
            Code::ROUND => return unary(UnaryOp::Round),
            Code::RSQRT => return unary(UnaryOp::Rsqrt),
            Code::SIN => return unary(UnaryOp::Sin),
            Code::SQRT => return unary(UnaryOp::Sqrt),
            Code::SQUARE => return unary(UnaryOp::Square),
            Code::TANH => return unary(UnaryOp::Tanh),
            Code::PRELU => (Op::Prelu, all()),
            Code::SOFTMAX => {
                let beta = o.builtin_options_as_softmax_options().map_or(1.0, |p| p.beta());
                (Op::Softmax { beta }, first())
            }
            Code::LOG_SOFTMAX => (Op::LogSoftmax, first()),
            Code::L2_NORMALIZATION => {
                let fused = o.builtin_options_as_l2_norm_options().map(|p| p.fused_activation_function());
                no_activation(fused)?;
                (Op::L2Normalization, first())
            }
            Code::RESHAPE | Code::SQUEEZE | Code::EXPAND_DIMS => (Op::Reshape, first()),
            Code::TRANSPOSE => {
                let rank = self.rank(source, 0)?;
                let perm = self.integers(source, 1, "the permutation")?;
                let perm = perm.iter().map(|&axis| normal_axis(axis, rank)).collect::<Read<Vec<_>>>()?;
                let mut sorted = perm.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..rank) {
                    return Err(format!("{perm:?} is no permutation of {rank} axes"));
                }
                self.expect_shape(
                    source,
                    0,
                    &perm
                        .iter()
                        .map(|&axis| self.shape(source, 0).map(|s| s[axis]))
                        .collect::<Read<Vec<_>>>()?,
                )?;
                (Op::Transpose { perm }, first())
            }
            Code::PAD | Code::PADV2 => {
                let pads = self.pads(source, 1)?;
                self.expect_padded(source, &pads)?;
                let value = if code == Code::PADV2 { source.inputs.get(2).copied().flatten() } else { None };
                (Op::Pad { pads }, vec![source.inputs[0], value])
            }
            Code::MIRROR_PAD => {
                let pads = self.pads(source, 1)?;
                self.expect_padded(source, &pads)?;
                let p = o.builtin_options_as_mirror_pad_options().ok_or("options are missing")?;
                let mode = match p.mode() {
                    schema::MirrorPadMode::REFLECT => MirrorMode::Reflect,
                    _ => MirrorMode::Symmetric,
                };
                (Op::MirrorPad { pads, mode }, first())
            }
            Code::CONCATENATION => {
                let p = o.builtin_options_as_concatenation_options().ok_or("options are missing")?;
                no_activation(Some(p.fused_activation_function()))?;
                let axis = normal_axis(p.axis().into(), self.rank(source, 0)?)?;
                self.check_concat(source, axis)?;
                (Op::Concat { axis }, all())
            }
            Code::SPLIT | Code::SPLIT_V => {
                let (data, axis) = if code == Code::SPLIT { (1, 0) } else { (0, 2) };
                let axis = *self.integers(source, axis, "the axis")?.first().ok_or("the axis is missing")?;
                let axis = normal_axis(axis, self.rank(source, data)?)?;
                self.check_split(source, data, axis)?;
                (Op::Split { axis }, vec![source.inputs[data]])
            }
            Code::SLICE => (self.slice(source)?, first()),
            Code::STRIDED_SLICE => (self.strided_slice(source)?, first()),
            Code::PACK => {
                let p = o.builtin_options_as_pack_options().ok_or("options are missing")?;
                let axis = normal_axis(p.axis().into(), self.rank(source, 0)? + 1)?;
                let mut shape = self.shape(source, 0)?.to_vec();
                for at in 1..source.inputs.len() {
                    if self.shape(source, at)? != shape {
                        return Err("all inputs must have the same shape".into());
                    }
                }
                shape.insert(axis, source.inputs.len());
                self.expect_shape(source, 0, &shape)?;
                (Op::Pack { axis }, all())
            }
            Code::UNPACK => {
                let p = o.builtin_options_as_unpack_options().ok_or("options are missing")?;
                let axis = normal_axis(p.axis().into(), self.rank(source, 0)?)?;
                let mut shape = self.shape(source, 0)?.to_vec();
                if shape.remove(axis) != source.outputs.len() {
                    return Err("the number of outputs differs from the size of the axis".into());
                }
                for at in 0..source.outputs.len() {
                    self.expect_shape(source, at, &shape)?;
                }
                (Op::Unpack { axis }, first())
            }
            Code::GATHER => {
                let p = o.builtin_options_as_gather_options().ok_or("options are missing")?;
                let axis = normal_axis(p.axis().into(), self.rank(source, 0)?)?;
                let (mut shape, indices) = (self.shape(source, 0)?.to_vec(), self.shape(source, 1)?);
                let batch_dims = usize::try_from(p.batch_dims()).ok().filter(|&dims| dims <= axis);
                let batch_dims = batch_dims.filter(|&dims| indices.get(..dims) == shape.get(..dims));
                let batch_dims = batch_dims.ok_or("batch_dims does not fit the operands")?;
                shape.splice(axis..=axis, indices[batch_dims..].iter().copied());
                self.expect_shape(source, 0, &shape)?;
                (Op::Gather { axis, batch_dims }, all())
            }
            Code::BROADCAST_TO => (Op::BroadcastTo, first()),
            Code::BATCH_TO_SPACE_ND | Code::SPACE_TO_BATCH_ND => {
                let block = self.integers(source, 1, "the block shape")?;
                let block = block.iter().map(|&n| size(n)).collect::<Read<Vec<_>>>()?;
                let margin = self.pads(source, 2)?;
                self.check_blocks(source, &block, &margin, code == Code::SPACE_TO_BATCH_ND)?;
                match code {
                    Code::BATCH_TO_SPACE_ND => (Op::BatchToSpace { block, crops: margin }, first()),
                    _ => (Op::SpaceToBatch { block, pads: margin }, first()),
                }
            }
            Code::DEPTH_TO_SPACE => {
                let p = o.builtin_options_as_depth_to_space_options().ok_or("options are missing")?;
                let block = size(p.block_size().into())?;
                self.check_depth(self.output_shape(source, 0)?, self.shape(source, 0)?, block)?;
                (Op::DepthToSpace { block }, first())
            }
            Code::SPACE_TO_DEPTH => {
                let p = o.builtin_options_as_space_to_depth_options().ok_or("options are missing")?;
                let block = size(p.block_size().into())?;
                self.check_depth(self.shape(source, 0)?, self.output_shape(source, 0)?, block)?;
                (Op::SpaceToDepth { block }, first())
            }
            Code::MEAN => (self.reduce(source, ReduceOp::Mean)?, first()),
            Code::SUM => (self.reduce(source, ReduceOp::Sum)?, first()),
            Code::REDUCE_MAX => (self.reduce(source, ReduceOp::Max)?, first()),
            Code::REDUCE_MIN => (self.reduce(source, ReduceOp::Min)?, first()),
            Code::ARG_MAX | Code::ARG_MIN => {
                let axis = *self.integers(source, 1, "the axis")?.first().ok_or("the axis is missing")?;
                let axis = normal_axis(axis, self.rank(source, 0)?)?;
                (if code == Code::ARG_MAX { Op::ArgMax { axis } } else { Op::ArgMin { axis } }, first())
            }
            Code::QUANTIZE => (Op::Quantize, first()),
            Code::DEQUANTIZE => (Op::Dequantize, first()),
            Code::CAST => (Op::Cast, first()),
            Code::RESIZE_BILINEAR => {
                let p = o.builtin_options_as_resize_bilinear_options();
                let (align_corners, half_pixel_centers) =
                    p.map_or((false, false), |p| (p.align_corners(), p.half_pixel_centers()));
                (Op::ResizeBilinear { align_corners, half_pixel_centers }, first())
            }
            Code::RESIZE_NEAREST_NEIGHBOR => {
                let p = o.builtin_options_as_resize_nearest_neighbor_options();
                let (align_corners, half_pixel_centers) =
                    p.map_or((false, false), |p| (p.align_corners(), p.half_pixel_centers()));
                (Op::ResizeNearest { align_corners, half_pixel_centers }, first())
            }
            Code::UNIDIRECTIONAL_SEQUENCE_LSTM => self.lstm(source)?,
            Code::SVDF => self.svdf(source)?,
            Code::CUSTOM => self.custom(name, source)?,
            _ => {
                return Err(format!("{name} is not supported; supported are {}", OPERATORS.join(", ")));
            }
        }))
    }
}

fn binary(op: BinaryOp, fused: Option<schema::ActivationFunctionType>) -> Read<Op> {
    let activation = fused.map_or(Ok(Activation::None), activation)?;
    Ok(Op::Binary { op, activation })
}

pub(super) fn activation(fused: schema::ActivationFunctionType) -> Read<Activation> {
    Ok(match fused {
        schema::ActivationFunctionType::NONE => Activation::None,
        schema::ActivationFunctionType::RELU => Activation::Relu,
        schema::ActivationFunctionType::RELU6 => Activation::Relu6,
        schema::ActivationFunctionType::RELU_N1_TO_1 => Activation::ReluN1To1,
        other => {
            let name = other.variant_name().unwrap_or("unknown");
            return Err(format!(
                "fused activation {name} is not supported; supported are RELU, RELU6 and RELU_N1_TO_1"
            ));
        }
    })
}

fn no_activation(fused: Option<schema::ActivationFunctionType>) -> Read<()> {
    match fused.map(activation).transpose()? {
        None | Some(Activation::None) => Ok(()),
        Some(_) => Err("a fused activation is not supported here".into()),
    }
}
