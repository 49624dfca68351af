//! Constants and pass-through.

use super::{Dtypes, OpSpec, Param};
use crate::opset::Opset;

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
        c.argument("x")
            .map(|a| vec![a.ty.clone()])
            .ok_or_else(|| "`x` is missing".to_owned())
    },
};
