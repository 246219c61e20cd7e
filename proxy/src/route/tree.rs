//! A tree of path segments: which routes a path can take, found by walking it once.
//!
//! Each node holds lists of ranks (see `rank.rs`), lowest first, by what has to follow: the end
//! of the path, a segment border, or at least one byte more. A literal child is found by one
//! look-up in a hash table over all nodes, so that the number of routes does not matter; a
//! parameter (`{id}`) is one child more. Each node knows the lowest rank below it, so what
//! cannot win is not walked. Nothing is allocated by a walk.
//!
//! A segment is compared in the form of `reading.rs`.

use hashbrown::HashTable;

use crate::config::{PathRule, Segment, Tail};

/// Position of a route among those of its listener; the lowest that matches wins.
pub(super) type Rank = u32;

/// No route.
pub(super) const NONE: Rank = Rank::MAX;

/// Trees of several roots in one arena.
#[derive(Debug, Default)]
pub(super) struct Trees {
    nodes: Vec<Node>,
    edges: HashTable<Edge>,
}

#[derive(Debug)]
struct Node {
    /// Lowest rank here and below.
    best: Rank,
    parameter: Option<u32>,
    /// Whether there are literal children.
    literals: bool,
    end: List,
    prefix: List,
    rest: List,
}

/// Most lists have one member or none, and those are kept in place.
#[derive(Debug, Default)]
enum List {
    #[default]
    Empty,
    One(Rank),
    More(Vec<Rank>),
}

#[derive(Debug)]
struct Edge {
    from: u32,
    segment: Box<[u8]>,
    to: u32,
}

impl Trees {
    /// A root without routes.
    pub(super) fn root(&mut self) -> u32 {
        self.nodes.push(Node {
            best: NONE,
            parameter: None,
            literals: false,
            end: List::Empty,
            prefix: List::Empty,
            rest: List::Empty,
        });
        (self.nodes.len() - 1) as u32
    }

    /// Adds a route, in the order of ranks. `None` as path: every path.
    pub(super) fn insert(&mut self, root: u32, path: Option<&PathRule>, rank: Rank) {
        let mut at = root;
        self.nodes[at as usize].best = self.nodes[at as usize].best.min(rank);
        for segment in path.map_or(&[][..], PathRule::segments) {
            at = match segment {
                Segment::Literal(literal) => self.literal_or_new(at, literal),
                Segment::Parameter(_) => match self.nodes[at as usize].parameter {
                    Some(child) => child,
                    None => {
                        let child = self.root();
                        self.nodes[at as usize].parameter = Some(child);
                        child
                    }
                },
            };
            self.nodes[at as usize].best = self.nodes[at as usize].best.min(rank);
        }
        let node = &mut self.nodes[at as usize];
        match path.map_or(&Tail::Open, PathRule::tail) {
            Tail::End => node.end.push(rank),
            Tail::Open => node.prefix.push(rank),
            Tail::Rest(_) => node.rest.push(rank),
        }
    }

    fn literal_or_new(&mut self, from: u32, segment: &[u8]) -> u32 {
        if let Some(child) = self.literal(from, segment) {
            return child;
        }
        let to = self.root();
        self.nodes[from as usize].literals = true;
        let edge = Edge { from, segment: segment.into(), to };
        let again = |edge: &Edge| hash(edge.from, &edge.segment, 0);
        self.edges.insert_unique(hash(from, segment, 0), edge, again);
        to
    }

    fn literal(&self, from: u32, segment: &[u8]) -> Option<u32> {
        let is = |edge: &Edge| edge.from == from && *edge.segment == *segment;
        self.edges.find(hash(from, segment, 0), is).map(|edge| edge.to)
    }

    /// Lowers `found` to the lowest rank that the path can take and that `admits`.
    pub(super) fn walk(
        &self,
        at: u32,
        path: &[u8],
        admits: &impl Fn(Rank) -> bool,
        found: &mut Rank,
    ) {
        let node = &self.nodes[at as usize];
        if node.best >= *found {
            return;
        }
        // What is left begins with a slash or is empty: a border of segments either way.
        node.prefix.lower(admits, found);
        let Some((b'/', rest)) = path.split_first() else {
            // A path is not empty, so this is its end; `*` (RFC 9112 section 3.2.4) is no path.
            if path.is_empty() {
                node.end.lower(admits, found);
            }
            return;
        };
        if !rest.is_empty() {
            node.rest.lower(admits, found);
        }
        if !node.literals && node.parameter.is_none() {
            return;
        }
        let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let (segment, left) = rest.split_at(end);
        if node.literals
            && let Some(child) = self.literal(at, segment)
        {
            self.walk(child, left, admits, found);
        }
        if let Some(child) = node.parameter.filter(|_| !segment.is_empty()) {
            self.walk(child, left, admits, found);
        }
    }
}

impl List {
    fn push(&mut self, rank: Rank) {
        match self {
            Self::Empty => *self = Self::One(rank),
            Self::One(first) => *self = Self::More(vec![*first, rank]),
            Self::More(ranks) => ranks.push(rank),
        }
    }

    fn lower(&self, admits: &impl Fn(Rank) -> bool, found: &mut Rank) {
        let ranks = match self {
            Self::Empty => return,
            Self::One(rank) => std::slice::from_ref(rank),
            Self::More(ranks) => ranks,
        };
        let lower = ranks.iter().take_while(|rank| **rank < *found);
        if let Some(rank) = lower.copied().find(|rank| admits(*rank)) {
            *found = rank;
        }
    }
}

/// Of a few bytes, fast. The tables hold what the configuration says, so nobody can fill a
/// bucket from outside. `fold`: bits to set in every byte, `0x20` to make cases of letters one.
pub(super) fn hash(seed: u32, bytes: &[u8], fold: u8) -> u64 {
    const K: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];
    let fold = u64::from_ne_bytes([fold; 8]);
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(K[1]);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut state = K[0] ^ ((u64::from(seed) << 32) | bytes.len() as u64);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.try_into().map_or(0, u64::from_le_bytes);
        state = mix(state, word | fold);
    }
    let mut last = [0; 8];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(state, u64::from_le_bytes(last) | fold), K[0])
}
