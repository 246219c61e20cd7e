//! The events of a batch by their records: one record after the other, the events of each in the
//! order in which they came.
//!
//! Numbers of records that are open at the same time are close to each other, so the events are
//! counted into their places; where they are not, they are sorted.

use crate::record::event::Event;

/// Memory for that, kept from one batch to the next.
#[derive(Debug, Default)]
pub(super) struct Order {
    sorted: Vec<Event>,
    /// Where the next event of each record goes.
    places: Vec<u32>,
}

impl Order {
    /// The events of each record.
    pub(super) fn of(&mut self, events: &[Event]) -> impl Iterator<Item = &[Event]> {
        let lowest = events.iter().map(|event| event.record).min().unwrap_or(0);
        let highest = events.iter().map(|event| event.record).max().unwrap_or(0);
        let range = (highest - lowest) as usize;
        self.sorted.clear();
        self.sorted.extend_from_slice(events);
        match range <= 4 * events.len() {
            true => self.count(events, lowest, range),
            // Stable: those of one record stay as they came.
            false => self.sorted.sort_by_key(|event| event.record),
        }
        self.sorted.chunk_by(|a, b| a.record == b.record)
    }

    fn count(&mut self, events: &[Event], lowest: u64, range: usize) {
        let at = |event: &Event| (event.record - lowest) as usize;
        self.places.clear();
        self.places.resize(range + 1, 0);
        events.iter().for_each(|event| self.places[at(event)] += 1);
        let mut before = 0;
        for place in &mut self.places {
            before += std::mem::replace(place, before);
        }
        for event in events {
            let place = &mut self.places[at(event)];
            self.sorted[*place as usize] = *event;
            *place += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::event::{Gap, Side, What};

    fn sorted(order: &mut Order, records: &[u64]) -> Vec<(u64, Vec<u64>)> {
        let event = |(at, record): (u64, &u64)| Event {
            record: *record,
            micros: at,
            what: What::Gap(Side::Request, Gap::default()),
        };
        let events: Vec<Event> = (0..).zip(records).map(event).collect();
        let groups = order.of(&events);
        let group = |one: &[Event]| (one[0].record, one.iter().map(|event| event.micros).collect());
        groups.map(group).collect()
    }

    #[test]
    fn events_are_with_their_record_in_the_order_in_which_they_came() {
        let mut order = Order::default();
        for base in [0, 7, u64::MAX - 9] {
            for far in [0, 9, 1 << 40] {
                let records = [base + 3, base, base + 3, base + 5, base, base + 3].map(|record| {
                    if record == base + 5 { record.saturating_add(far) } else { record }
                });
                let last = records[3];
                let wanted = [(base, vec![1, 4]), (base + 3, vec![0, 2, 5]), (last, vec![3])];
                assert_eq!(sorted(&mut order, &records), wanted, "{records:?}");
            }
        }
        assert!(sorted(&mut order, &[]).is_empty());
    }
}
