//! Ranges of part numbers, `1-50,52,55-100`: compact if there are few gaps, however many parts there are.

use entity::UploadId;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use std::fmt;

/// Ascending, disjoint and not adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u32, u32)>);

/// In a run of consecutive numbers, the difference between number and rank is constant ("gaps and islands").
const RUNS: &str = "SELECT MIN(part_number) AS first, MAX(part_number) AS last FROM (\
     SELECT part_number, part_number - ROW_NUMBER() OVER (ORDER BY part_number) AS run \
     FROM parts WHERE upload_id = $1 AND sha256 IS NOT NULL) AS received \
     GROUP BY run ORDER BY first";

impl Ranges {
    /// All parts from 1 to `last`.
    #[must_use]
    pub fn all(last: u32) -> Self {
        Self(if last == 0 {
            Vec::new()
        } else {
            vec![(1, last)]
        })
    }

    /// Returns the received parts of an upload. The ranges are computed by the database, so that only they are read.
    ///
    /// # Errors
    /// Database errors.
    pub async fn received(db: &impl ConnectionTrait, id: UploadId) -> Result<Self, DbErr> {
        let backend = db.get_database_backend();
        let sql = match backend {
            DbBackend::Postgres => RUNS.to_owned(),
            _ => RUNS.replace("$1", "?"),
        };
        let rows = db
            .query_all_raw(Statement::from_sql_and_values(backend, sql, [id.0.into()]))
            .await?;
        let mut ranges = Vec::with_capacity(rows.len());
        for row in rows {
            let (first, last): (i32, i32) = (row.try_get("", "first")?, row.try_get("", "last")?);
            ranges.push((first.unsigned_abs(), last.unsigned_abs()));
        }
        Ok(Self(ranges))
    }

    /// Returns the parts from 1 to `last` that are not in these ranges.
    #[must_use]
    pub fn missing(&self, last: u32) -> Self {
        let mut missing = Vec::with_capacity(self.0.len() + 1);
        let mut next = 1;
        for &(first, end) in &self.0 {
            if first > next {
                missing.push((next, first - 1));
            }
            next = end.saturating_add(1);
        }
        if next <= last {
            missing.push((next, last));
        }
        Self(missing)
    }

    /// Whether there are no parts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            if first == last {
                write!(f, "{first}")?;
            } else {
                write!(f, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_written_with_their_ends_and_single_numbers_alone() {
        let ranges = Ranges(vec![(1, 50), (52, 52), (55, 100)]);
        assert_eq!(ranges.to_string(), "1-50,52,55-100");
        assert_eq!(ranges.missing(100).to_string(), "51,53-54");
        assert_eq!(ranges.missing(101).to_string(), "51,53-54,101");
        assert_eq!(Ranges::default().missing(3).to_string(), "1-3");
        assert!(Ranges::all(3).missing(3).is_empty());
        assert_eq!(Ranges::all(0).to_string(), "");
    }
}
