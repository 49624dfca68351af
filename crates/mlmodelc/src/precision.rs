//! What a program computes with and what its weights are stored as, as `metadata.json` says it.

use std::collections::BTreeSet;

use mil::{Constant, Data, DataType, Function, Operand, Operation};

/// The types of all values, constants included: `Float16`, or `Mixed (Float16, Int32)`.
pub fn computed<'f>(functions: impl IntoIterator<Item = &'f Function>) -> String {
    let mut types = BTreeSet::new();
    for function in functions {
        let outputs = function.ops().flat_map(|op| &op.outputs);
        let tensors = outputs.filter_map(|&v| function.value(v).ty.as_tensor());
        types.extend(tensors.filter_map(|t| numeric(t.dtype)).map(str::to_owned));
    }
    mixed(types).unwrap_or_else(|| "Float32".to_owned())
}

/// The types of the weights; `None` without any.
pub fn stored<'f>(functions: impl IntoIterator<Item = &'f Function>) -> Option<String> {
    let ops = functions.into_iter().flat_map(Function::ops);
    mixed(ops.filter_map(stored_by).collect())
}

fn mixed(names: BTreeSet<String>) -> Option<String> {
    let names: Vec<_> = names.into_iter().collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        _ => Some(format!("Mixed ({})", names.join(", "))),
    }
}

/// The form of the weights that an operation brings.
fn stored_by(op: &Operation) -> Option<String> {
    let constant = |name: &str| {
        let mut inputs = op.inputs.iter().filter(|(n, _)| *n == name);
        let operand = inputs.next().and_then(|(_, operands)| operands.first());
        match operand {
            Some(Operand::Constant(c)) => Some(c),
            _ => op
                .attributes
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, c)| c),
        }
    };
    let mut constants = op.constants();
    let weight = constants.find(|c| matches!(c.data, Data::Weight(_)))?;
    let dtype = |c: Option<&Constant>| numeric(c?.ty.as_tensor()?.dtype).map(str::to_owned);
    match op.kind.name() {
        "constexpr_lut_to_dense" => {
            let bits = palette_bits(constant("indices")?, constant("lut")?)?;
            Some(format!("Palettized ({bits} bits)"))
        }
        "constexpr_sparse_to_dense"
        | "constexpr_sparse_blockwise_shift_scale"
        | "constexpr_lut_to_sparse" => Some("Sparse".to_owned()),
        "constexpr_affine_dequantize" => dtype(constant("quantized_data")),
        "constexpr_blockwise_shift_scale" => dtype(constant("data")),
        _ => dtype(Some(weight)),
    }
}

/// The iOS 18 form has indices of a type of their own; the one of iOS 16 has packed bytes, and as many entries as indices can tell.
fn palette_bits(indices: &Constant, table: &Constant) -> Option<u64> {
    let indices = indices.ty.as_tensor()?;
    if indices.dtype != DataType::Uint8 {
        return Some(indices.dtype.bits());
    }
    let shape = table.ty.as_tensor()?.shape()?;
    let entries = match shape.as_slice() {
        [entries] | [.., entries, _] => *entries,
        [] => return None,
    };
    Some(u64::from(entries.max(1).ilog2()))
}

fn numeric(dtype: DataType) -> Option<&'static str> {
    Some(match dtype {
        DataType::Bool | DataType::String => return None,
        DataType::Fp16 => "Float16",
        DataType::Fp32 => "Float32",
        DataType::Fp64 => "Double",
        DataType::Bf16 => "BFloat16",
        DataType::Int4 => "Int4",
        DataType::Int8 => "Int8",
        DataType::Int16 => "Int16",
        DataType::Int32 => "Int32",
        DataType::Int64 => "Int64",
        DataType::Uint1 => "UInt1",
        DataType::Uint2 => "UInt2",
        DataType::Uint3 => "UInt3",
        DataType::Uint4 => "UInt4",
        DataType::Uint6 => "UInt6",
        DataType::Uint8 => "UInt8",
        DataType::Uint16 => "UInt16",
        DataType::Uint32 => "UInt32",
        DataType::Uint64 => "UInt64",
        DataType::Fp8E4M3Fn => "Float8E4M3FN",
        DataType::Fp8E5M2 => "Float8E5M2",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(ops: &str) -> Function {
        let text =
            format!("program(1.3) {{ func main<ios18>(tensor<fp16, [4]> x) {{ {ops} }} -> (x); }}");
        let program = mil::text::parse(&text).unwrap().program;
        program.functions["main"].clone()
    }

    #[test]
    fn weights_are_named_by_their_form() {
        let blob = |ty: &str, at: u32| {
            format!("{ty}(BLOBFILE(path = string(\"w\"), offset = uint64({at})))")
        };
        let dense = format!(
            "tensor<fp16, [4]> a = const()[val = {}];",
            blob("tensor<fp16, [4]>", 64)
        );
        let ios16 = |entries: u32| {
            let (indices, lut) = (
                blob("tensor<uint8, [2]>", 64),
                blob(&format!("tensor<fp16, [{entries}]>"), 128),
            );
            format!(
                "tensor<fp16, [4]> a = constexpr_lut_to_dense()[indices = {indices}, lut = {lut}];"
            )
        };
        let ios18 = |ty: &str| {
            let (indices, lut) = (
                blob(&format!("tensor<{ty}, [4]>"), 64),
                blob("tensor<fp16, [1, 16, 1]>", 128),
            );
            format!(
                "tensor<fp16, [4]> b = constexpr_lut_to_dense(indices = {indices}, lut = {lut});"
            )
        };
        let blocks = format!(
            "tensor<fp16, [4]> c = constexpr_blockwise_shift_scale(data = {}, scale = {});",
            blob("tensor<int4, [4]>", 64),
            blob("tensor<fp16, [1]>", 128)
        );
        for (ops, expected) in [
            (String::new(), None),
            ("fp16 a = const()[val = fp16(0x1p+0)];".to_owned(), None),
            (dense.clone(), Some("Float16")),
            (ios16(16), Some("Palettized (4 bits)")),
            (ios18("uint4"), Some("Palettized (4 bits)")),
            (ios18("uint6"), Some("Palettized (6 bits)")),
            (ios16(256), Some("Palettized (8 bits)")),
            (blocks.clone(), Some("Int4")),
            (dense + &blocks, Some("Mixed (Float16, Int4)")),
        ] {
            assert_eq!(stored([&function(&ops)]).as_deref(), expected, "{ops}");
        }
    }

    #[test]
    fn constants_count_as_computed() {
        let ops = "tensor<fp16, [4]> y = relu(x = x); int32 n = const()[val = int32(1)]; bool b = const()[val = bool(true)];";
        assert_eq!(computed([&function(ops)]), "Mixed (Float16, Int32)");
        assert_eq!(computed([&function("")]), "Float32");
    }
}
