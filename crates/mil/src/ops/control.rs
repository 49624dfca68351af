//! Constants, pass-through and control flow.
//!
//! Source: `iOS15/control_flow.py` of coremltools 9.0.

use super::call::plain;
use super::{Dtypes, OpSpec, Param};
use crate::opset::Opset;
use crate::types::DataType;

/// Its value stands in the attribute `val`, which the verifier checks against the declared type.
pub(super) const CONST: OpSpec = OpSpec {
    name: "const",
    since: Opset::CoreMl5,
    params: &[],
    infer: |_| Err("the type of a `const` is that of its `val`".to_owned()),
};

pub(super) const IDENTITY: OpSpec = OpSpec {
    name: "identity",
    since: Opset::CoreMl5,
    params: &[Param::new("x", Dtypes::Any)],
    infer: |c| {
        let x = c.argument("x").ok_or("`x` is missing")?;
        Ok(vec![plain("x", x.ty)?])
    },
};

/// Its blocks take nothing: the first for true, the second for false. The verifier checks what they give.
pub(super) const COND: OpSpec = OpSpec {
    name: "cond",
    since: Opset::CoreMl5,
    params: &[Param::new("pred", Dtypes::Of(&[DataType::Bool]))],
    infer: |_| Err("the types of a `cond` are those that its nested blocks give".to_owned()),
};

/// Its blocks take the loop variables: the first gives whether to go on, the second the loop variables of the next iteration.
/// The verifier checks them.
pub(super) const WHILE_LOOP: OpSpec = OpSpec {
    name: "while_loop",
    since: Opset::CoreMl5,
    params: &[Param::new("loop_vars", Dtypes::Any).many()],
    infer: |_| Err("the types of a `while_loop` are those that its nested blocks give".to_owned()),
};
