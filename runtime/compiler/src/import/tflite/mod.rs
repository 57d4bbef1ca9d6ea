//! TensorFlow Lite files.
//!
//! The flatbuffer is verified before anything is read. Options are normalized on the way in: paddings become
//! explicit, negative axes positive, shapes are those of the tensors in the file (an unknown batch is 1).

mod operands;
mod operators;
mod slice;
mod stateful;
mod variables;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::rc::Rc;

use dunlin_tflite_schema as schema;

use crate::CompileError;
use crate::graph::{DType, Graph, Quant, StateId, Value, ValueId};

pub use operators::OPERATORS;

/// Largest tensor that is accepted, in bytes. Bounds what a hostile file can make the compiler allocate.
const MAX_TENSOR_BYTES: usize = 1 << 28;
/// Most tensors and operators of a file.
const MAX_ITEMS: usize = 1 << 14;

/// Reads a TensorFlow Lite model.
pub fn import(bytes: &[u8]) -> Result<Graph, CompileError> {
    let options = flatbuffers::VerifierOptions {
        max_tables: 1_000_000,
        max_apparent_size: 1 << 31,
        ..flatbuffers::VerifierOptions::default()
    };
    let model = schema::root_as_model_with_opts(&options, bytes)
        .map_err(|error| CompileError::Malformed(format!("not a valid TensorFlow Lite file: {error}")))?;
    let subgraphs =
        model.subgraphs().filter(|all| !all.is_empty()).ok_or_else(|| malformed("no subgraph"))?;
    let mut importer = Importer {
        model,
        subgraph: subgraphs.get(0),
        graph: Graph::default(),
        handles: HashMap::new(),
        states: HashMap::new(),
    };
    importer.read_tensors()?;
    importer.read_interface()?;
    importer.read_operators()?;
    Ok(importer.graph)
}

/// The state of an import. Value `i` of the graph is tensor `i` of the file's first subgraph.
struct Importer<'a> {
    model: schema::Model<'a>,
    subgraph: schema::SubGraph<'a>,
    graph: Graph,
    /// Resource tensors of the main subgraph and the variables they stand for.
    handles: HashMap<ValueId, StateId>,
    /// Variables by container and name.
    states: HashMap<(String, String), StateId>,
}

impl<'a> Importer<'a> {
    fn read_tensors(&mut self) -> Result<(), CompileError> {
        let tensors = self.subgraph.tensors().ok_or_else(|| malformed("no tensors"))?;
        if tensors.len() > MAX_ITEMS {
            return Err(malformed(format!("{} tensors; at most {MAX_ITEMS} are supported", tensors.len())));
        }
        for (index, tensor) in tensors.iter().enumerate() {
            let value = self.read_tensor(index, tensor)?;
            self.graph.add_value(value);
        }
        Ok(())
    }

    fn read_tensor(&self, index: usize, tensor: schema::Tensor<'a>) -> Result<Value, CompileError> {
        let name = tensor.name().unwrap_or("").to_owned();
        let fail = |what: String| malformed(format!("tensor {index} ({name}): {what}"));
        let mut shape = Vec::new();
        for dim in tensor.shape().iter().flatten() {
            // -1 stands for an unknown size, in practice the batch.
            let dim = if dim == -1 { 1 } else { dim };
            shape.push(usize::try_from(dim).map_err(|_| fail(format!("negative size {dim}")))?);
        }
        if tensor.sparsity().is_some() {
            return Err(fail("sparse tensors are not supported".into()));
        }
        let Some(dtype) = element_type(tensor.type_()) else {
            // Resource handles and unused exotic tensors have no elements; an operator that touches one says so.
            return Ok(placeholder(name));
        };
        let bytes = shape.iter().try_fold(dtype.size(), |n: usize, &dim| n.checked_mul(dim));
        let bytes = bytes.filter(|&n| n <= MAX_TENSOR_BYTES);
        let bytes =
            bytes.ok_or_else(|| fail(format!("shape {shape:?} is larger than {MAX_TENSOR_BYTES} bytes")))?;
        let data = self.buffer(tensor.buffer(), &fail)?;
        if let Some(data) = &data
            && data.len() != bytes
        {
            return Err(fail(format!("its constant has {} bytes, its shape {bytes}", data.len())));
        }
        let quant = tensor.quantization().and_then(|q| read_quant(q, &shape));
        let zero_points = quant.iter().flat_map(|quant| &quant.zero_points);
        let range = zero_point_range(dtype);
        if let Some(zero_point) = zero_points.copied().find(|zero_point| !range.contains(zero_point)) {
            return Err(fail(format!("zero point {zero_point} is no {dtype:?}")));
        }
        Ok(Value { name, dtype, shape, quant, data, was_unsigned: false })
    }

    /// The contents of a buffer; `None` for an empty one.
    fn buffer(
        &self,
        index: u32,
        fail: &dyn Fn(String) -> CompileError,
    ) -> Result<Option<Rc<[u8]>>, CompileError> {
        let buffers = self.model.buffers();
        let Some(buffer) =
            buffers.filter(|all| (index as usize) < all.len()).map(|all| all.get(index as usize))
        else {
            return if index == 0 { Ok(None) } else { Err(fail(format!("buffer {index} does not exist"))) };
        };
        if buffer.offset() > 1 {
            return Err(fail("data outside the flatbuffer (files over 2 GiB) is not supported".into()));
        }
        Ok(buffer.data().filter(|data| !data.is_empty()).map(|data| data.bytes().into()))
    }

    fn read_interface(&mut self) -> Result<(), CompileError> {
        let ids = |list: Option<flatbuffers::Vector<'a, i32>>,
                   what: &str|
         -> Result<Vec<ValueId>, CompileError> {
            let mut ids = Vec::new();
            for id in list.iter().flatten() {
                ids.push(self.value_id(id).ok_or_else(|| malformed(format!("{what} {id} does not exist")))?);
            }
            Ok(ids)
        };
        let inputs = ids(self.subgraph.inputs(), "input")?;
        let outputs = ids(self.subgraph.outputs(), "output")?;
        if outputs.is_empty() {
            return Err(malformed("the model has no output"));
        }
        for &id in &inputs {
            if self.graph.values[id].data.is_some() {
                return Err(malformed(format!("input {id} is a constant")));
            }
        }
        self.graph.inputs = inputs;
        self.graph.outputs = outputs;
        Ok(())
    }

    /// A tensor index of the file as a value.
    fn value_id(&self, id: i32) -> Option<ValueId> {
        usize::try_from(id).ok().filter(|&id| id < self.graph.values.len())
    }
}

/// A value without elements, for tensors that are not data.
fn placeholder(name: String) -> Value {
    Value { name, dtype: DType::I8, shape: vec![0], quant: None, data: None, was_unsigned: false }
}

/// Quantization parameters. Zero points left out are 0; an axis that does not fit (as in TensorFlow Lite Micro's
/// person_detect) is taken as the axis that the number of scales fits.
fn read_quant(quant: schema::QuantizationParameters<'_>, shape: &[usize]) -> Option<Quant> {
    let scales: Vec<f32> = quant.scale()?.iter().collect();
    if scales.is_empty() {
        return None;
    }
    let mut zero_points: Vec<i64> = quant.zero_point().iter().flatten().collect();
    zero_points.resize(scales.len(), zero_points.first().copied().unwrap_or(0));
    let stated = usize::try_from(quant.quantized_dimension()).unwrap_or(0);
    let fits = |axis: usize| shape.get(axis) == Some(&scales.len());
    let axis = if fits(stated) { stated } else { (0..shape.len()).find(|&axis| fits(axis)).unwrap_or(0) };
    Some(Quant { scales, zero_points, axis })
}

/// A zero point stands for a real 0, so the tensor's own type must be able to hold it.
fn zero_point_range(dtype: DType) -> RangeInclusive<i64> {
    match dtype {
        DType::I8 => i8::MIN.into()..=i8::MAX.into(),
        DType::U8 => 0..=u8::MAX.into(),
        DType::I16 => i16::MIN.into()..=i16::MAX.into(),
        _ => i32::MIN.into()..=i32::MAX.into(),
    }
}

/// The element type, if tensors of this type hold data that the compiler knows.
fn element_type(tensor: schema::TensorType) -> Option<DType> {
    Some(match tensor {
        schema::TensorType::INT8 => DType::I8,
        schema::TensorType::UINT8 => DType::U8,
        schema::TensorType::INT16 => DType::I16,
        schema::TensorType::INT32 => DType::I32,
        schema::TensorType::INT64 => DType::I64,
        schema::TensorType::FLOAT32 => DType::F32,
        schema::TensorType::FLOAT16 => DType::F16,
        schema::TensorType::BOOL => DType::Bool,
        schema::TensorType::UINT32 => DType::U32,
        schema::TensorType::UINT64 => DType::U64,
        _ => return None,
    })
}

fn malformed(what: impl Into<String>) -> CompileError {
    CompileError::Malformed(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &[u8] = include_bytes!("../../../../../models/keyword_dscnn_int8.tflite");

    #[test]
    fn zero_points_fit_their_tensor() {
        assert!(import(MODEL).is_ok());
        let model = schema::root_as_model(MODEL).unwrap();
        let input = model.subgraphs().unwrap().get(0).tensors().unwrap().get(0);
        assert_eq!(input.type_(), schema::TensorType::INT8);
        let zero_point = input.quantization().unwrap().zero_point().unwrap().bytes();
        let at = zero_point.as_ptr().addr() - MODEL.as_ptr().addr();
        for (wrong, is_said) in
            [(i64::MIN, "zero point -9223372036854775808 is no I8"), (128, "128 is no I8")]
        {
            let mut bytes = MODEL.to_vec();
            bytes[at..][..8].copy_from_slice(&wrong.to_le_bytes());
            let error = import(&bytes).unwrap_err().to_string();
            assert!(error.contains(is_said), "{error}");
        }
    }
}
