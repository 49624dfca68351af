//! Programs: as text, as messages, cut and joined.

use mil::text::{Location, parse, print};
use mil::{Program, TensorType, Verified, WeightError, WeightId, WeightStore, verify};
use mlpackage::Problem;
use mlpackage::program::{BlobPlace, decode, encode};
use partition::{Count, Joining, Options};
use prost::Message;

type Place<'a> = dyn FnMut(WeightId, &TensorType) -> Result<BlobPlace, Problem> + 'a;

/// What parses prints to a text that parses and prints to itself; then what `check` demands.
pub fn mil_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(parsed) = parse(text) else { return };
    let locate = |weight: WeightId| parsed.weights[weight.0 as usize].clone();
    let printed = print(&parsed.program, &locate);
    let again = parse(&printed).expect("what was printed");
    let same = print(&again.program, &|weight| {
        again.weights[weight.0 as usize].clone()
    });
    assert_eq!(printed, same);
    check(&parsed.program, &mut |weight, _| {
        let Location { path, offset } = locate(weight);
        Ok(BlobPlace {
            file_name: path,
            offset_bytes: offset,
        })
    });
}

/// A program that encodes decodes to one that encodes the same. A verified one prints to a text that parses, and can be cut
/// into verified chunks that join again.
pub fn check(program: &Program, place: &mut Place<'_>) {
    if let Ok(encoded) = encode(program, place) {
        // Two weights of one place and different types are refused.
        if let Ok((decoded, table)) = decode(&encoded) {
            let again = encode(&decoded, &mut |weight, _| table.place(weight));
            let again = again.expect("what was decoded").encode_to_vec();
            assert_eq!(again, encoded.encode_to_vec());
        }
    }
    let Ok(verified) = verify(program) else {
        return;
    };
    let printed = print(program, &Location::unplaced);
    let parsed = parse(&printed).expect("what was printed");
    let same = print(&parsed.program, &|weight| {
        parsed.weights[weight.0 as usize].clone()
    });
    assert_eq!(printed, same);
    cut(&verified);
}

fn cut(program: &Verified<'_>) {
    let options = Options {
        count: Count::Exactly(2),
        ..Options::default()
    };
    let Ok(plan) = partition::plan(program, &Lengths, &options) else {
        return;
    };
    let Ok(chunks) = partition::cut(program, &plan) else {
        return;
    };
    let verified: Vec<_> = chunks.iter().map(|c| verify(c).expect("a chunk")).collect();
    let joining = Joining {
        originals: None,
        pipeline_outputs: None,
        narrowed: false,
    };
    let joined = partition::join(&verified, &joining).expect("the chunks of a cut");
    verify(&joined.program).expect("a joined program");
}

/// Every weight has the same length; nothing reads them.
struct Lengths;

impl WeightStore for Lengths {
    fn len_bytes(&self, _: WeightId) -> u64 {
        64
    }

    fn read_at(&self, _: WeightId, _: u64, _: &mut [u8]) -> Result<(), WeightError> {
        Err("lengths only".into())
    }

    fn name(&self, weight: WeightId) -> String {
        format!("weight {}", weight.0)
    }
}
