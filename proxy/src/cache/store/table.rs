//! A table whose rows keep their numbers, and that takes less when there are fewer of them.
//!
//! Rows lie in pieces of 64. One that is added takes the lowest place there is, so that those at
//! the end become free where there are fewer than there were, and a piece with no row in it is
//! given back wherever it lies. What it takes is known, so that it can be charged, and grows and
//! shrinks by a piece: no change of it copies the table.

use std::ops::{Index, IndexMut};

/// Rows of a piece: a bit for each.
const ROWS: u32 = u64::BITS;

/// The table.
#[derive(Debug)]
pub(super) struct Table<T> {
    pieces: Vec<Piece<T>>,
    /// A bit for each piece that has a free place, or may have its memory again.
    room: Vec<u64>,
    /// No word of `room` before this one has a bit.
    first: usize,
    len: usize,
    /// Pieces that have memory.
    held: usize,
}

type Rows<T> = Box<[Option<T>; ROWS as usize]>;

#[derive(Debug)]
struct Piece<T> {
    used: u64,
    /// `None` while there is no row in it.
    rows: Option<Rows<T>>,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self { pieces: Vec::new(), room: Vec::new(), first: 0, len: 0, held: 0 }
    }

    /// What it takes, in bytes.
    pub(super) fn allocated(&self) -> usize {
        self.pieces.capacity() * size_of::<Piece<T>>()
            + self.room.capacity() * size_of::<u64>()
            + self.held * size_of::<[Option<T>; ROWS as usize]>()
    }

    /// Rows of it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All rows are at places below this.
    pub(super) fn places(&self) -> u32 {
        self.pieces.len() as u32 * ROWS
    }

    pub(super) fn get(&self, at: u32) -> Option<&T> {
        let rows = self.pieces.get((at / ROWS) as usize)?.rows.as_ref()?;
        rows[(at % ROWS) as usize].as_ref()
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        let rows = self.pieces.get_mut((at / ROWS) as usize)?.rows.as_mut()?;
        rows[(at % ROWS) as usize].as_mut()
    }

    /// Adds a row; its place.
    pub(super) fn add(&mut self, row: T) -> u32 {
        let number = self.piece_with_room();
        let piece = &mut self.pieces[number];
        let place = (!piece.used).trailing_zeros();
        let held = &mut self.held;
        let rows = piece.rows.get_or_insert_with(|| {
            *held += 1;
            Box::new([const { None }; ROWS as usize])
        });
        rows[place as usize] = Some(row);
        piece.used |= 1 << place;
        if piece.used == u64::MAX {
            self.room[number / 64] &= !(1 << (number % 64));
        }
        self.len += 1;
        number as u32 * ROWS + place
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, at: u32) -> Option<T> {
        let number = (at / ROWS) as usize;
        let piece = self.pieces.get_mut(number)?;
        let row = piece.rows.as_mut()?[(at % ROWS) as usize].take()?;
        piece.used &= !(1 << (at % ROWS));
        self.room[number / 64] |= 1 << (number % 64);
        self.first = self.first.min(number / 64);
        self.len -= 1;
        if piece.used == 0 {
            piece.rows = None;
            self.held -= 1;
            self.cut();
        }
        Some(row)
    }

    fn piece_with_room(&mut self) -> usize {
        while let Some(word) = self.room.get(self.first) {
            if *word != 0 {
                return self.first * 64 + word.trailing_zeros() as usize;
            }
            self.first += 1;
        }
        let number = self.pieces.len();
        if self.pieces.len() == self.pieces.capacity() {
            self.pieces.reserve_exact(self.pieces.len() / 4 + 1);
        }
        self.pieces.push(Piece { used: 0, rows: None });
        if number.is_multiple_of(64) {
            self.room.push(0);
        }
        self.first = number / 64;
        self.room[self.first] |= 1 << (number % 64);
        number
    }

    /// Forgets pieces at the end that have no memory.
    fn cut(&mut self) {
        while self.pieces.last().is_some_and(|piece| piece.rows.is_none()) {
            self.pieces.pop();
            let number = self.pieces.len();
            self.room[number / 64] &= !(1 << (number % 64));
        }
        self.room.truncate(self.pieces.len().div_ceil(64));
        self.first = self.first.min(self.room.len());
        if self.pieces.len() < self.pieces.capacity() / 4 {
            self.pieces.shrink_to(self.pieces.len() * 2);
            self.room.shrink_to(self.pieces.len().div_ceil(32));
        }
    }
}

/// # Panics
/// If there is no such row.
impl<T> Index<u32> for Table<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        self.get(at).expect("a row")
    }
}

/// # Panics
/// If there is no such row.
impl<T> IndexMut<u32> for Table<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        self.get_mut(at).expect("a row")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn rows_keep_their_places_and_the_lowest_free_one_is_taken() {
        let mut random = fastrand::Rng::with_seed(9);
        let (mut table, mut known) = (Table::new(), BTreeMap::new());
        for step in 0..100_000_u64 {
            // Up to thousands of rows, and down again, and again.
            let adds = if step / 20_000 % 2 == 0 { 7 } else { 3 };
            if random.u8(..10) < adds || known.is_empty() {
                let is_free = |place: &u32| !known.contains_key(place);
                let lowest = (step < 5000).then(|| (0..).find(is_free)).flatten();
                let place = table.add(step);
                assert!(lowest.is_none_or(|lowest| lowest == place), "{place}, not {lowest:?}");
                assert_eq!(known.insert(place, step), None, "somebody has it");
            } else {
                let (place, row) = known.range(random.u32(..table.places())..).next().map_or_else(
                    || known.iter().next().map(|(place, row)| (*place, *row)).unwrap(),
                    |(place, row)| (*place, *row),
                );
                assert_eq!((table.remove(place), table.remove(place)), (Some(row), None));
                known.remove(&place);
            }
            assert_eq!(table.len(), known.len());
        }
        assert!(known.iter().all(|(place, row)| table[*place] == *row && *place < table.places()));
        assert_eq!(table.get(table.places()), None);
    }

    #[test]
    fn it_takes_what_its_rows_take_however_many_there_were() {
        let mut table = Table::new();
        let places: Vec<u32> = (0..100_000_u64).map(|row| table.add(row)).collect();
        let most = table.allocated();
        assert!(most < 100_000 * 16 * 21 / 20, "{most}");
        // One that stays at the end, and some in between, keep their pieces and no more.
        for place in places.iter().filter(|place| **place % 20_000 != 19_999) {
            table.remove(*place);
        }
        assert_eq!(table.len(), 5);
        assert!(table.allocated() < most / 20, "{} of {most}", table.allocated());
        assert!(table.add(1) < 64 && table[99_999] == 99_999);
        for place in (0..=99_999).filter(|place| *place % 20_000 == 19_999) {
            table.remove(place);
        }
        assert!((table.len(), table.places()) == (1, 64), "the end has gone");
        assert!(table.allocated() < 4096, "{}", table.allocated());
    }
}
