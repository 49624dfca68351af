//! Reading and writing states.
//!
//! Source: `iOS18/states.py` of coremltools 9.0 for `read_state`; `backend/mil/load.py` writes `coreml_update_state` as a
//! `write_state`, which no class there defines, and a `read_state`.

use super::call::plain;
use super::{Call, Dtypes, OpSpec, Param};
use crate::opset::Opset;
use crate::shown;
use crate::types::ValueType;

pub(super) const READ_STATE: OpSpec = OpSpec {
    name: "read_state",
    since: Opset::CoreMl8,
    params: &[Param::new("input", Dtypes::State)],
    infer: |c| Ok(vec![plain("input", held(c)?)?]),
};

/// Makes no value.
pub(super) const WRITE_STATE: OpSpec = OpSpec {
    name: "write_state",
    since: Opset::CoreMl8,
    params: &[
        Param::new("data", Dtypes::Any),
        Param::new("input", Dtypes::State),
    ],
    infer: |c| {
        let data = c.argument("data").ok_or("`data` is missing")?.ty;
        match (data.as_tensor(), held(c)?.as_tensor()) {
            (Some(data), Some(held)) if data.agrees(held) => Ok(Vec::new()),
            _ => Err(format!(
                "`data` is `{}`, the state holds `{}`",
                shown::ty(data),
                shown::ty(held(c)?)
            )),
        }
    },
};

/// The type of what the state holds.
fn held<'a>(c: &Call<'a>) -> Result<&'a ValueType, String> {
    match c.argument("input").map(|a| a.ty) {
        Some(ValueType::State(held)) => Ok(held),
        _ => Err("`input` is no state".to_owned()),
    }
}
