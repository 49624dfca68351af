//! Plans: which operations each chunk holds, what enters and leaves it, what its weights take.

use std::ops::Range;

use mil::{DataType, ValueId, ValueType, Verified, WeightStore};

use crate::error::Error;
use crate::flow::Flow;
use crate::interface::{Interface, carrier};
use crate::options::{Boundary, Count, MAX_CHUNKS, Options, Wiring};
use crate::search::{MAX_TRAFFIC_BYTES, Search};
use crate::segments::Segments;

/// Where to cut a program, and what comes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The chunks in order.
    pub chunks: Vec<ChunkPlan>,
    /// The cuts between them, one fewer.
    pub cuts: Vec<Cut>,
    /// The limit that was asked for.
    pub limit_bytes: Option<u64>,
    /// The smallest possible length of the longest weight file of that many chunks.
    pub best_largest_bytes: u64,
    /// Names of the values that cross with a loss: `fp32` ones that cross as `fp16`.
    pub narrowed: Vec<String>,
    pub(crate) boundary: Boundary,
    pub(crate) wiring: Wiring,
    pub(crate) first_chunk_inputs: Vec<String>,
}

/// One chunk of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkPlan {
    /// Its operations, by their position among the program's operations that are no constants.
    pub operations: Range<usize>,
    /// Number of all operations of its program: with constants, casts and what passes values through.
    pub program_operations: usize,
    /// Length of its weight file; 0 where it has no weights, since then there is none.
    pub weight_bytes: u64,
    /// Inputs of the program, then what enters from chunks before, in program order.
    pub inputs: Vec<Feature>,
    /// Outputs of the program: of a chain's last chunk all, of a pipeline's those that the chunk makes. Then what leaves for
    /// later chunks, in program order.
    pub outputs: Vec<Feature>,
    /// Whether its weight file is no longer than the limit; `true` without one.
    pub within_limit: bool,
}

/// A cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The last operation before it.
    pub operation: String,
    /// Number of operations that are no constants before it.
    pub position: usize,
    /// Bytes that cross.
    pub crossing_bytes: u64,
}

/// An input or output of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// The value of the program that it is, or carries.
    pub value: ValueId,
    /// Whether it carries a value from one chunk to the next; otherwise it is an input or output of the program.
    pub crosses: bool,
    /// Its type: for all that crosses a cut a tensor, for inputs and outputs of the program what it declares.
    pub ty: ValueType,
}

impl Feature {
    /// The element type, if it is a tensor.
    pub fn dtype(&self) -> Option<DataType> {
        Some(self.ty.as_tensor()?.dtype)
    }

    /// The shape, if it is a tensor of fixed shape.
    pub fn shape(&self) -> Option<Vec<u64>> {
        self.ty.as_tensor()?.shape()
    }

    /// Length in bytes, if it is a tensor of fixed shape.
    pub fn len_bytes(&self) -> Option<u64> {
        self.ty.as_tensor()?.len_bytes()
    }
}

impl Plan {
    /// Bytes that cross all cuts.
    pub fn crossing_bytes(&self) -> u64 {
        self.cuts.iter().map(|c| c.crossing_bytes).sum()
    }

    /// Whether every chunk is within the limit.
    pub fn within_limit(&self) -> bool {
        self.chunks.iter().all(|c| c.within_limit)
    }
}

/// Chooses where to cut the function `main`.
///
/// The number of chunks is the one asked for, or the smallest whose weight files fit the limit. Of all plans with that many
/// chunks, those are allowed whose largest weight file exceeds the smallest possible one by the balance at most, and does not
/// exceed the limit where that can be met. Of these it is one with the least bytes across cuts; of several the one whose
/// largest file is smallest, then the one whose last cut is earliest, then the one before it, and so on.
///
/// # Errors
/// The options make no sense for the program, or no plan does what they ask for.
pub fn plan(
    program: &Verified<'_>,
    weights: &dyn WeightStore,
    options: &Options,
) -> Result<Plan, Error> {
    check(options)?;
    let flow = Flow::new(program)?;
    let positions = Positions::new(&flow, options);
    let segments = Segments::new(positions.weights(&flow), weights, &options.cost)?;
    let search = Search {
        segments: &segments,
        traffic: &positions.traffic,
    };
    let chunks = match (options.count, options.limit_bytes) {
        (Count::Exactly(n), _) => possible(n, segments.len())?,
        (Count::Fewest, None) => 1,
        (Count::Fewest, Some(limit)) => positions.fewest(&flow, &search, limit)?,
    };
    let choice = search.choose(chunks, options.balance, options.limit_bytes);
    let ends = [&choice.cuts[..], &[segments.len()]].concat();
    let starts = [&[0], &choice.cuts[..]].concat();
    let windows: Vec<_> = starts.into_iter().zip(ends).map(|(s, e)| s..e).collect();
    let ranges: Vec<_> = windows.iter().map(|w| positions.units(w.clone())).collect();
    let first_inputs = &options.first_chunk_inputs;
    let (boundary, wiring) = (options.boundary, options.wiring);
    let interface = Interface::new(&flow, &ranges, boundary, wiring, first_inputs)?;
    let chunk = |(chunk, range): (usize, &Range<usize>)| {
        let weight_bytes = segments.file_bytes(windows[chunk].clone());
        let (inputs, outputs) = features(&flow, &interface, chunk);
        ChunkPlan {
            operations: range.clone(),
            program_operations: interface.chunks[chunk].steps.len(),
            weight_bytes,
            inputs,
            outputs,
            within_limit: options
                .limit_bytes
                .is_none_or(|limit| weight_bytes <= limit),
        }
    };
    let cut = |&segment: &usize| {
        let position = positions.bounds[segment];
        Cut {
            operation: flow.unit_name(position - 1),
            position,
            crossing_bytes: positions.traffic[segment],
        }
    };
    Ok(Plan {
        chunks: ranges.iter().enumerate().map(chunk).collect(),
        cuts: choice.cuts.iter().map(cut).collect(),
        limit_bytes: options.limit_bytes,
        best_largest_bytes: choice.best_bytes,
        narrowed: narrowed(&flow, &interface),
        boundary,
        wiring,
        first_chunk_inputs: first_inputs.clone(),
    })
}

fn narrowed(flow: &Flow<'_>, interface: &Interface) -> Vec<String> {
    let crossings = interface.crossings.iter().filter(|c| c.is_narrowed());
    crossings
        .map(|c| flow.f.value(c.value).name.clone())
        .collect()
}

fn check(options: &Options) -> Result<(), Error> {
    options.cost.check()?;
    if !options.balance.is_finite() || options.balance < 0.0 {
        return Err(Error::Balance {
            balance: options.balance,
        });
    }
    match options.count {
        Count::Exactly(asked) if !(1..=MAX_CHUNKS).contains(&asked) => {
            Err(Error::ChunkCount { asked })
        }
        _ => Ok(()),
    }
}

fn possible(asked: u32, segments: usize) -> Result<usize, Error> {
    let possible = u32::try_from(segments).unwrap_or(u32::MAX);
    if asked > possible {
        return Err(Error::TooManyChunks { asked, possible });
    }
    Ok(asked as usize)
}

/// Inputs and outputs of a chunk.
pub(crate) fn features(
    flow: &Flow<'_>,
    interface: &Interface,
    chunk: usize,
) -> (Vec<Feature>, Vec<Feature>) {
    let outline = &interface.chunks[chunk];
    let own = |&v: &ValueId| Feature {
        name: flow.f.value(v).name.clone(),
        value: v,
        crosses: false,
        ty: flow.f.value(v).ty.clone(),
    };
    let crossing = |i: usize, name: &str| Feature {
        name: name.to_owned(),
        value: interface.crossings[i].value,
        crosses: true,
        ty: interface.crossings[i].carried.clone(),
    };
    let mut inputs: Vec<_> = outline.inputs.iter().map(own).collect();
    let enter = outline.enter.iter();
    inputs.extend(enter.map(|&i| crossing(i, interface.crossings[i].name_into(chunk))));
    let mut outputs: Vec<_> = outline.results.iter().map(own).collect();
    let leave = outline.leave.iter();
    outputs.extend(leave.map(|&i| crossing(i, interface.crossings[i].name_after(chunk))));
    (inputs, outputs)
}

/// Where a program may be cut. The operations between two such positions are a segment.
struct Positions {
    /// Position 0, those that allow a cut, and the number of units.
    bounds: Vec<usize>,
    /// Bytes live across the position where each segment starts.
    traffic: Vec<u64>,
}

impl Positions {
    fn new(flow: &Flow<'_>, options: &Options) -> Self {
        let len = flow.units.len();
        let mut born = vec![Live::default(); len + 1];
        let mut gone = vec![Live::default(); len + 1];
        let mut add = |made: usize, last: usize, live: Live| {
            born[made + 1].add(live);
            if last < len {
                gone[last + 1].add(live);
            }
        };
        for life in flow.lives(options.wiring) {
            add(life.made, life.last, Live::of(life.value, flow, options));
        }
        for (input, last) in flow.input_spans() {
            if options.exclusive.contains(&input) {
                add(0, last, Live::EXCLUSIVE);
            }
        }
        for (first, last) in flow.state_spans().filter(|(first, last)| first < last) {
            add(first, last, Live::BARRIER);
        }
        let mut positions = Positions {
            bounds: vec![0],
            traffic: vec![0],
        };
        let mut live = Live::default();
        for position in 1..len {
            live.add(born[position]);
            live.remove(gone[position]);
            if live.allows_cut() {
                positions.bounds.push(position);
                positions.traffic.push(live.traffic());
            }
        }
        positions.bounds.push(len);
        positions
    }

    fn units(&self, segments: Range<usize>) -> Range<usize> {
        self.bounds[segments.start]..self.bounds[segments.end]
    }

    /// Weights of each segment; those of constants that are outputs go with the last one.
    fn weights(&self, flow: &Flow<'_>) -> impl Iterator<Item = Vec<mil::WeightId>> {
        let mut met = flow.none_met();
        self.bounds.windows(2).enumerate().map(move |(i, bounds)| {
            let units = &flow.units[bounds[0]..bounds[1]];
            let mut weights = Vec::new();
            for unit in units {
                weights.extend(flow.unit_weights(unit, &mut met));
            }
            if i + 1 == self.traffic.len() {
                weights.extend(flow.constant_weights(&flow.output_constants(), &mut met));
            }
            weights
        })
    }

    fn fewest(&self, flow: &Flow<'_>, search: &Search<'_>, limit: u64) -> Result<usize, Error> {
        match search.fewest(limit) {
            Some(needed) if needed <= MAX_CHUNKS as usize => Ok(needed),
            Some(needed) => Err(Error::TooManyNeeded {
                needed: u32::try_from(needed).unwrap_or(u32::MAX),
                limit_bytes: limit,
            }),
            None => Err(self.over_limit(flow, search.segments, limit)),
        }
    }

    /// Names the first segment that is over the limit by itself: there is one, or each could be a chunk.
    fn over_limit(&self, flow: &Flow<'_>, segments: &Segments, limit_bytes: u64) -> Error {
        let alone = |s: usize| segments.file_bytes(s..s + 1);
        let over = (0..segments.len()).find(|&s| alone(s) > limit_bytes);
        let segment = over.expect("some segment is over a limit that no plan keeps");
        let weight_bytes = alone(segment);
        let units = self.units(segment..segment + 1);
        if units.len() > 1 {
            return Error::InseparableOverLimit {
                first: flow.unit_name(units.start),
                last: flow.unit_name(units.end - 1),
                weight_bytes,
                limit_bytes,
            };
        }
        let operation = match units.last() {
            Some(unit) => flow.unit_name(unit),
            // A program that computes nothing has constants as outputs.
            None => flow.f.value(flow.body.outputs[0]).name.clone(),
        };
        Error::OperationOverLimit {
            operation,
            weight_bytes,
            limit_bytes,
        }
    }
}

/// Elements of a value, as it counts where its type leaves its shape open.
fn num_elements(value: ValueId, ty: &ValueType, options: &Options) -> Option<u64> {
    let tensor = ty.as_tensor()?;
    let open = || {
        options
            .open_shapes
            .get(&value)?
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(d))
    };
    tensor.num_elements().or_else(open)
}

/// What is live across a position.
#[derive(Clone, Copy, Default)]
struct Live {
    values: usize,
    /// Values of 2^64 bytes at most, fewer than 2^32.
    bytes: u128,
    /// Values that cannot cross.
    barriers: usize,
    /// Values of which a chunk takes one at most.
    exclusive: usize,
}

impl Live {
    const BARRIER: Live = Live {
        values: 0,
        bytes: 0,
        barriers: 1,
        exclusive: 0,
    };

    const EXCLUSIVE: Live = Live {
        values: 0,
        bytes: 0,
        barriers: 0,
        exclusive: 1,
    };

    fn of(value: ValueId, flow: &Flow<'_>, options: &Options) -> Self {
        let ty = &flow.f.value(value).ty;
        let dtype = carrier(ty, flow.opset, options.boundary);
        let bytes = dtype.and_then(|dtype| dtype.len_bytes(num_elements(value, ty, options)?));
        bytes.map_or(Self::BARRIER, |bytes| Live {
            values: 1,
            bytes: u128::from(bytes),
            barriers: 0,
            exclusive: usize::from(options.exclusive.contains(&value)),
        })
    }

    /// A chunk has an output, as every function must, so a cut is also refused where nothing crosses.
    fn allows_cut(self) -> bool {
        self.barriers == 0 && self.values > 0 && self.exclusive <= 1
    }

    fn add(&mut self, other: Live) {
        self.values += other.values;
        self.bytes += other.bytes;
        self.barriers += other.barriers;
        self.exclusive += other.exclusive;
    }

    fn remove(&mut self, other: Live) {
        self.values -= other.values;
        self.bytes -= other.bytes;
        self.barriers -= other.barriers;
        self.exclusive -= other.exclusive;
    }

    fn traffic(&self) -> u64 {
        u64::try_from(self.bytes).map_or(MAX_TRAFFIC_BYTES, |b| b.min(MAX_TRAFFIC_BYTES))
    }
}
