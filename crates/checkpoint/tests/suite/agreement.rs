//! Our reader and writer against the format's own library, on random files.
//!
//! Whatever we accept, the library accepts with the same table and bytes. Where it accepts and we do not, the file has
//! a tensor's name twice, a key of `__metadata__` twice, or a `__metadata__` that is `null`.

use std::collections::BTreeMap;

use crate::samples::Folder;
use checkpoint::{Checkpoint, Dtype, Error, OpenOptions, writer};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use safetensors::SafeTensors;

type Tensors = Vec<(String, Dtype, Vec<u64>)>;

fn tensors() -> impl Strategy<Value = Tensors> {
    let dtype_and_shape = (
        select(Dtype::ALL.to_vec()),
        prop::collection::vec(0..4u64, 0..4),
    )
        .prop_filter("whole bytes", |(dtype, shape)| {
            dtype.len_bytes(shape).is_some()
        });
    prop::collection::btree_map(".{0,6}", dtype_and_shape, 0..6)
        .prop_map(|map| {
            map.into_iter()
                .map(|(name, (dtype, shape))| (name, dtype, shape))
                .collect::<Tensors>()
        })
        .prop_shuffle()
}

fn metadata() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(".{0,4}", ".{0,4}", 0..3)
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    (tensors(), metadata()).prop_map(|(tensors, metadata)| {
        let (mut bytes, _) = writer::header(&tensors, &metadata);
        let len = tensors
            .iter()
            .filter_map(|(_, dtype, shape)| dtype.len_bytes(shape))
            .sum::<u64>();
        bytes.extend((0..len).map(|byte| byte as u8));
        bytes
    })
}

/// Headers near the edge of the rules: entries that may overlap, leave gaps, lie about their size, or come twice.
fn odd_header() -> impl Strategy<Value = String> {
    let dtype = select(vec!["U8", "U8", "F16", "F4", "BOOL", "Q8", "u8"]);
    let entry = (
        select(vec!["a", "b", "c", "d"]),
        dtype,
        0..3u64,
        0..4u64,
        0..3u64,
    );
    let extra = select(vec![
        "",
        r#""__metadata__":null"#,
        r#""__metadata__":{}"#,
        r#""__metadata__":{"k":"v","k":"v"}"#,
        r#""__metadata__":{"k":0}"#,
        r#""z":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"note":[{}]}"#,
        r#""z":["U8",[0],[0,0]]"#,
        r#""z":{"shape":[0],"data_offsets":[0,0]}"#,
    ]);
    (prop::collection::vec(entry, 0..4), extra).prop_map(|(entries, extra)| {
        let entry = |(name, dtype, width, begin, len): (&str, &str, u64, u64, u64)| {
            let end = begin + len;
            format!(
                r#""{name}":{{"dtype":"{dtype}","shape":[{width}],"data_offsets":[{begin},{end}]}}"#
            )
        };
        let mut fields: Vec<String> = entries.into_iter().map(entry).collect();
        fields.extend((!extra.is_empty()).then(|| extra.to_string()));
        format!("{{{}}}", fields.join(","))
    })
}

fn with_length(json: &str, data_len: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.resize(bytes.len() + data_len, 7);
    bytes
}

fn is_stricter_rule(error: &Error) -> bool {
    match error {
        Error::DuplicateTensor { .. } => true,
        Error::Header { problem, .. } => {
            problem.contains("duplicate key") || problem.contains("type: null")
        }
        _ => false,
    }
}

fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    let folder = Folder::new();
    let path = folder.write("a.safetensors", bytes);
    let ours = Checkpoint::open(&path, &OpenOptions::default());
    match (ours, SafeTensors::deserialize(bytes)) {
        (Ok(ours), Ok(theirs)) => same(&ours, &theirs),
        (Err(_), Err(_)) => Ok(()),
        (Err(error), Ok(_)) => {
            prop_assert!(is_stricter_rule(&error), "we refuse: {error}");
            Ok(())
        }
        (Ok(_), Err(error)) => Err(TestCaseError::fail(format!("they refuse: {error}"))),
    }
}

fn same(ours: &Checkpoint, theirs: &SafeTensors) -> Result<(), TestCaseError> {
    prop_assert_eq!(ours.tensors().len(), theirs.len());
    for tensor in ours.tensors() {
        let view = theirs.tensor(&tensor.name).expect("the same names");
        prop_assert_eq!(tensor.dtype.name(), view.dtype().to_string());
        prop_assert_eq!(tensor.dtype.size_bits(), view.dtype().bitsize() as u64);
        let shape: Vec<u64> = view.shape().iter().map(|&width| width as u64).collect();
        prop_assert_eq!(&tensor.shape, &shape);
        let mut data = vec![0; tensor.len_bytes as usize];
        ours.read_at(tensor, 0, &mut data).expect("within the file");
        prop_assert_eq!(data.as_slice(), view.data());
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_we_write_both_read(tensors in tensors(), metadata in metadata()) {
        let (mut bytes, offsets) = writer::header(&tensors, &metadata);
        prop_assert_eq!(&writer::header(&tensors, &metadata).0, &bytes);
        prop_assert_eq!(bytes.len() % 8, 0);
        for ((_, dtype, shape), offset) in tensors.iter().zip(&offsets) {
            prop_assert_eq!(bytes.len() as u64, *offset);
            bytes.resize(bytes.len() + dtype.len_bytes(shape).unwrap() as usize, 1);
        }
        let (_, theirs) = SafeTensors::read_metadata(&bytes).unwrap();
        let their_metadata = theirs.metadata().clone().unwrap_or_default();
        prop_assert_eq!(their_metadata.into_iter().collect::<BTreeMap<_, _>>(), metadata.clone());
        let folder = Folder::new();
        let ours = Checkpoint::open(&folder.write("a", &bytes), &OpenOptions::default()).unwrap();
        prop_assert_eq!(ours.metadata(), &metadata);
        for ((name, ..), offset) in tensors.iter().zip(offsets) {
            prop_assert_eq!(ours.source_range(ours.get(name).unwrap()).1, offset);
        }
        agree(&bytes)?;
    }

    #[test]
    fn what_they_write_we_read(tensors in tensors()) {
        let data: Vec<Vec<u8>> = tensors
            .iter()
            .enumerate()
            .map(|(n, (_, dtype, shape))| vec![n as u8; dtype.len_bytes(shape).unwrap() as usize])
            .collect();
        let views = tensors.iter().zip(&data).map(|((name, dtype, shape), data)| {
            let dtype = serde_json::from_value(dtype.name().into()).unwrap();
            let shape = shape.iter().map(|&width| width as usize).collect();
            (name.clone(), safetensors::tensor::TensorView::new(dtype, shape, data).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        let folder = Folder::new();
        let ours = Checkpoint::open(&folder.write("a", &bytes), &OpenOptions::default()).unwrap();
        same(&ours, &SafeTensors::deserialize(&bytes).unwrap())?;
    }

    #[test]
    fn odd_headers_are_judged_alike(json in odd_header(), data_len in 0..6usize) {
        agree(&with_length(&json, data_len))?;
    }

    #[test]
    fn damage_is_judged_alike(mut bytes in file(), at in any::<Index>(), byte: u8, cut in prop::option::of(any::<Index>())) {
        *at.get_mut(&mut bytes) = byte;
        let len = cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1));
        agree(&bytes[..len])?;
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        agree(&bytes)?;
    }
}
