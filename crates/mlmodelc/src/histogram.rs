//! How many operations of each kind a program has, as `metadata.json` counts them.
//!
//! Core ML's compiler names an operation after the operation set that last changed it: `Ios17.add` and `Ios16.relu` stand in one
//! model for iOS 17, and operations that nothing changed before iOS 18 have no prefix, as `Select`. There is no public list of these;
//! the names here are those of models seen, and for others a guess. Apps read it: that `Ios16.einsum` is counted tells them
//! which form of attention a UNet has.

use std::collections::BTreeMap;

use mil::ops::{Op, OpKind};
use mil::{Function, Opset};

/// Unchanged before iOS 18.
const UNVERSIONED: &[&str] = &[
    "concat",
    "fill",
    "pad",
    "select",
    "shape",
    "split",
    "stack",
    "tile",
    "upsample_nearest_neighbor",
];

/// Changed by iOS 16 and then by none before iOS 18.
const SINCE_IOS16: &[&str] = &[
    "constexpr_affine_dequantize",
    "constexpr_cast",
    "constexpr_lut_to_dense",
    "constexpr_sparse_to_dense",
    "cos",
    "einsum",
    "erf",
    "exp",
    "gelu",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_sum",
    "relu",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "sqrt",
    "square",
    "tanh",
];

/// Counts by name; constants do not count.
pub fn of<'f>(functions: impl IntoIterator<Item = &'f Function>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for function in functions {
        let opset = Opset::parse(&function.opset).unwrap_or(Opset::CoreMl8);
        for op in function
            .ops()
            .filter(|op| op.kind != OpKind::from(Op::Const))
        {
            *counts.entry(name(op.kind.name(), opset)).or_default() += 1;
        }
    }
    counts
}

fn name(op: &str, opset: Opset) -> String {
    let is_old = opset < Opset::CoreMl8;
    if is_old && UNVERSIONED.contains(&op) {
        return camel(op, true);
    }
    let since = if is_old && SINCE_IOS16.contains(&op) {
        Opset::CoreMl6
    } else {
        opset
    };
    let target = since.ios().strip_prefix("ios").unwrap_or_default();
    format!("Ios{target}.{}", camel(op, false))
}

/// `reduce_mean` as `reduceMean`.
fn camel(name: &str, mut upper: bool) -> String {
    let mut camel = String::new();
    for c in name.chars() {
        match c {
            '_' => upper = true,
            _ if upper => {
                camel.extend(c.to_uppercase());
                upper = false;
            }
            _ => camel.push(c),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names from models that Core ML's compiler wrote.
    #[test]
    fn names_are_those_of_core_mls_compiler() {
        for (op, opset, expected) in [
            ("relu", Opset::CoreMl7, "Ios16.relu"),
            ("relu", Opset::CoreMl8, "Ios18.relu"),
            ("add", Opset::CoreMl7, "Ios17.add"),
            ("einsum", Opset::CoreMl6, "Ios16.einsum"),
            ("select", Opset::CoreMl7, "Select"),
            ("tile", Opset::CoreMl7, "Tile"),
            ("reduce_argmax", Opset::CoreMl7, "Ios17.reduceArgmax"),
            (
                "constexpr_affine_dequantize",
                Opset::CoreMl7,
                "Ios16.constexprAffineDequantize",
            ),
            (
                "upsample_nearest_neighbor",
                Opset::CoreMl6,
                "UpsampleNearestNeighbor",
            ),
        ] {
            assert_eq!(name(op, opset), expected);
        }
    }
}
