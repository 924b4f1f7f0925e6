//! How much of a run's rows is fingerprinted: the smallest tables first, until the budget of
//! bytes is used up.

use std::collections::HashSet;

use super::server::ServerTable;

/// Bytes that may still be fingerprinted in this run; 0 from the start: nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    left: u64,
    off: bool,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            left: bytes,
            off: bytes == 0,
        }
    }

    /// Chooses what is fingerprinted in one database and takes it off the budget. `None` for
    /// nothing at all. Large objects come along with tables and count as a table does.
    pub(crate) fn choose(
        &mut self,
        tables: &[ServerTable],
        large_object_bytes: u64,
    ) -> Option<HashSet<u32>> {
        if self.off || large_object_bytes > self.left {
            return None;
        }
        self.left -= large_object_bytes;
        let mut sizes: Vec<_> = tables
            .iter()
            .filter(|table| !table.excluded)
            // A table whose size is not known may be of any size.
            .filter_map(|table| Some((table.bytes?, table.oid)))
            .collect();
        sizes.sort_unstable();
        let mut chosen = HashSet::new();
        for (bytes, oid) in sizes {
            if bytes > self.left {
                break;
            }
            self.left -= bytes;
            chosen.insert(oid);
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tables(sizes: &[u64]) -> Vec<ServerTable> {
        sizes
            .iter()
            .zip(1..)
            .map(|(bytes, oid)| ServerTable {
                oid,
                bytes: Some(*bytes),
                ..ServerTable::default()
            })
            .collect()
    }

    #[test]
    fn the_smallest_come_first_and_the_rest_of_the_run_gets_what_is_left() {
        let mut budget = Budget::new(100);
        let chosen = budget.choose(&tables(&[50, 10, 30, 60]), 5).unwrap();
        assert_eq!(chosen, HashSet::from([1, 2, 3]));
        assert_eq!(budget.left, 5);
        let chosen = budget.choose(&tables(&[6, 5]), 0).unwrap();
        assert_eq!(chosen, HashSet::from([2]));
    }

    #[test]
    fn nothing_without_a_budget_and_where_large_objects_do_not_fit() {
        assert_eq!(Budget::new(0).choose(&tables(&[0]), 0), None);
        assert_eq!(Budget::new(10).choose(&tables(&[1]), 11), None);
        let mut unknown = tables(&[0]);
        unknown[0].bytes = None;
        assert_eq!(Budget::new(10).choose(&unknown, 0), Some(HashSet::new()));
    }

    proptest! {
        #[test]
        fn what_is_chosen_fits(sizes in prop::collection::vec(0_u64..1000, 0..40), budget in 1_u64..5000, large in 0_u64..1000) {
            let tables = tables(&sizes);
            if let Some(chosen) = Budget::new(budget).choose(&tables, large) {
                let used: u64 = tables.iter().filter(|t| chosen.contains(&t.oid)).filter_map(|t| t.bytes).sum();
                prop_assert!(used + large <= budget);
                let largest = tables.iter().filter(|t| chosen.contains(&t.oid)).filter_map(|t| t.bytes).max();
                let left_out = tables.iter().filter(|t| !chosen.contains(&t.oid)).filter_map(|t| t.bytes).min();
                if let (Some(largest), Some(left_out)) = (largest, left_out) {
                    prop_assert!(largest <= left_out);
                }
            }
        }
    }
}
