//! Resource variables: VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE and the subgraph that CALL_ONCE runs first.

use std::collections::HashMap;
use std::rc::Rc;

use dunlin_tflite_schema as schema;

use super::{Importer, element_type, malformed};
use crate::CompileError;
use crate::graph::{StateId, Value, ValueId};

impl<'a> Importer<'a> {
    /// VAR_HANDLE: names a variable.
    pub(super) fn var_handle(&mut self, operator: schema::Operator<'a>) -> Result<(), CompileError> {
        let state = self.variable(operator);
        let output = operator.outputs().filter(|all| !all.is_empty()).map(|all| all.get(0));
        let handle = output
            .and_then(|id| self.value_id(id))
            .ok_or_else(|| malformed("VAR_HANDLE without a result"))?;
        self.handles.insert(handle, state);
        Ok(())
    }

    /// The variable that a handle tensor stands for.
    pub(super) fn handle(&self, id: Option<ValueId>) -> Option<StateId> {
        self.handles.get(&id?).copied()
    }

    /// A variable gets its shape and type from the first value that is read from it or assigned to it.
    pub(super) fn shape_variable(&mut self, state: StateId, id: ValueId) -> Result<(), CompileError> {
        let Value { dtype, shape, quant, .. } = self.graph.values[id].clone();
        let variable = &mut self.graph.states[state];
        if variable.shape.is_empty() {
            variable.dtype = dtype;
            variable.shape = shape;
            variable.quant = quant;
        } else if variable.dtype != dtype
            || variable.shape.iter().product::<usize>() != shape.iter().product()
        {
            return Err(malformed(format!("variable {} changes its type or size", variable.name)));
        }
        let bytes = variable.shape.iter().product::<usize>() * variable.dtype.size();
        if variable.initial.as_ref().is_some_and(|initial| initial.len() != bytes) {
            return Err(malformed(format!("variable {} starts with another size", variable.name)));
        }
        Ok(())
    }

    /// CALL_ONCE: the subgraph may only assign constants, which become the variables' initial values.
    pub(super) fn call_once(&mut self, operator: schema::Operator<'a>) -> Result<(), CompileError> {
        let options = operator.builtin_options_as_call_once_options();
        let index = options.map_or(-1, |options| options.init_subgraph_index());
        let subgraphs = self.model.subgraphs().ok_or_else(|| malformed("no subgraph"))?;
        let index = usize::try_from(index).ok().filter(|&index| index > 0 && index < subgraphs.len());
        let subgraph = subgraphs.get(index.ok_or_else(|| malformed("CALL_ONCE names no subgraph"))?);
        let mut handles: HashMap<i32, StateId> = HashMap::new();
        for operator in subgraph.operators().iter().flatten() {
            let operand = |at: usize| operator.inputs().filter(|all| all.len() > at).map(|all| all.get(at));
            match self.operator_code(operator)? {
                schema::BuiltinOperator::VAR_HANDLE => {
                    let output = operator.outputs().filter(|all| !all.is_empty()).map(|all| all.get(0));
                    handles.insert(output.unwrap_or(-1), self.variable(operator));
                }
                schema::BuiltinOperator::ASSIGN_VARIABLE => {
                    let state = operand(0).and_then(|id| handles.get(&id).copied());
                    let constant =
                        operand(1).map(|id| self.subgraph_constant(subgraph, id)).transpose()?.flatten();
                    let (Some(state), Some(constant)) = (state, constant) else {
                        return Err(malformed(
                            "the subgraph of CALL_ONCE assigns something that is no constant",
                        ));
                    };
                    self.graph.states[state].initial = Some(constant);
                }
                other => {
                    let name = other.variant_name().unwrap_or("unknown operator");
                    return Err(malformed(format!(
                        "the subgraph of CALL_ONCE contains {name}; only variables set to constants are supported"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The variable that a VAR_HANDLE names; made when it is named first.
    fn variable(&mut self, operator: schema::Operator<'a>) -> StateId {
        let options = operator.builtin_options_as_var_handle_options();
        let container = options.and_then(|options| options.container()).unwrap_or("").to_owned();
        let name = options.and_then(|options| options.shared_name()).unwrap_or("").to_owned();
        let next = self.graph.states.len();
        let state = *self.states.entry((container, name.clone())).or_insert(next);
        if state == next {
            self.add_state(name);
        }
        state
    }

    fn subgraph_constant(
        &self,
        subgraph: schema::SubGraph<'a>,
        id: i32,
    ) -> Result<Option<Rc<[u8]>>, CompileError> {
        let tensors = subgraph.tensors();
        let tensor = tensors.zip(usize::try_from(id).ok()).filter(|(all, id)| id < &all.len());
        let Some(tensor) = tensor.map(|(all, id)| all.get(id)) else { return Ok(None) };
        let Some(dtype) = element_type(tensor.type_()) else { return Ok(None) };
        let fail = |what: String| malformed(format!("initial value {id}: {what}"));
        match self.buffer(tensor.buffer(), &fail)? {
            Some(data) => Ok(Some(data)),
            // A variable may start from a tensor that is all zeros and has no buffer.
            None => {
                let shape: Vec<i32> = tensor.shape().iter().flatten().collect();
                let elements =
                    shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(usize::try_from(d).ok()?));
                let bytes = elements.filter(|&n| n <= super::MAX_TENSOR_BYTES);
                Ok(Some(vec![0; bytes.ok_or_else(|| fail("too large".into()))?].into()))
            }
        }
    }
}
