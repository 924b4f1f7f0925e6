//! Cutting a table into ranges of its pages.

/// Movers that are few.
const FEW: u32 = 4;

/// Bytes of a table, with what it stores out of line, that one unit is to hold. The units of many
/// movers are smaller: while the first is written, the others have to find [`room`] to wait in, or
/// their movers wait themselves.
pub(crate) fn unit_bytes(movers: u32) -> u64 {
    match movers {
        ..=FEW => 12 << 20,
        _ => 2 << 20,
    }
}

/// Bytes of finished units that may wait for units before them. Less for many movers: glibc keeps for
/// each of their threads nearly the most that it ever held.
pub(crate) fn room(movers: u32) -> usize {
    match movers {
        ..=FEW => 12 << 20,
        _ => 6 << 20,
    }
}

/// Pages of a heap: from the first one on and before the second one; no bound means from the start
/// or to the end, whatever the end is by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: Option<u32>,
    pub(crate) to: Option<u32>,
}

/// Ranges of about `unit` bytes each, in the order of the pages and without a gap: the rows then
/// come in the order of an unsplit table. One range for a table that is better left whole.
pub(crate) fn ranges(bytes: u64, pages: u64, unit: u64) -> Vec<Range> {
    let last = u64::from(u32::MAX);
    // A table of less than two units gains nothing; one page cannot be cut.
    let count = if bytes < 2 * unit {
        1
    } else {
        bytes.div_ceil(unit).min(pages.min(last)).max(1)
    };
    let bound = |number: u64| {
        let page = u128::from(number) * u128::from(pages.min(last)) / u128::from(count);
        u32::try_from(page).unwrap_or(u32::MAX)
    };
    (0..count)
        .map(|number| Range {
            from: (number > 0).then(|| bound(number)),
            to: (number + 1 < count).then(|| bound(number + 1)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNIT: u64 = 12 << 20;

    #[test]
    fn small_tables_stay_whole() {
        let whole = [Range {
            from: None,
            to: None,
        }];
        assert_eq!(ranges(0, 0, UNIT), whole);
        assert_eq!(ranges(2 * UNIT - 1, 4000, UNIT), whole);
        // All of it is out of line.
        assert_eq!(ranges(1 << 40, 1, UNIT), whole);
        assert_eq!(
            ranges(2 * UNIT, 3072, UNIT),
            [
                Range {
                    from: None,
                    to: Some(1536)
                },
                Range {
                    from: Some(1536),
                    to: None
                }
            ]
        );
    }

    proptest! {
        #[test]
        fn every_page_is_in_one_range(
            bytes in 0_u64..1 << 44,
            pages in 0_u64..1 << 33,
            movers in 1_u32..20,
        ) {
            // Bounded, so that a case stays small.
            let bytes = bytes.min(pages * (1 << 20)).min(1 << 37);
            let ranges = ranges(bytes, pages, unit_bytes(movers));
            prop_assert_eq!(ranges[0].from, None);
            prop_assert_eq!(ranges[ranges.len() - 1].to, None);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].to, pair[1].from);
                prop_assert!(pair[0].to.is_some());
                prop_assert!(pair[0].from.unwrap_or(0) < pair[1].from.unwrap_or(0));
            }
        }
    }
}
