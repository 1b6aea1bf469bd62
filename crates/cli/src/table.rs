//! Tables of text.

use crate::output::shorten;

/// Cells of text are not made shorter than this.
const SHORTEST: usize = 8;

/// Rows under a header. Columns of numbers are set to the right.
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A name that starts with `>` makes its column one of numbers.
    pub fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Lines of at most this width: the widest cells of text are shortened until all fits, or each
    /// of them is as short as makes sense.
    pub fn lines_within(mut self, width: Option<usize>) -> Vec<String> {
        let Some(width) = width else {
            return self.lines();
        };
        loop {
            let lines = self.lines();
            let longest = lines.iter().map(|line| line.chars().count()).max();
            let Some(over) = longest.and_then(|longest| longest.checked_sub(width + 1)) else {
                return lines;
            };
            let text = (0..self.header.len()).filter(|at| !self.header[*at].starts_with('>'));
            let cells = |at: usize| self.rows.iter().filter_map(move |row| row.get(at));
            let widest = |at: usize| cells(at).map(|cell| cell.chars().count()).max();
            let column = text.max_by_key(|at| widest(*at));
            let Some((at, wide)) = column.and_then(|at| Some((at, widest(at)?))) else {
                return lines;
            };
            if wide <= SHORTEST {
                return lines;
            }
            let short = wide.saturating_sub(over + 1).max(wide / 2).max(SHORTEST);
            for row in &mut self.rows {
                if let Some(cell) = row.get_mut(at) {
                    *cell = shorten(cell, short);
                }
            }
        }
    }

    /// Lines without blanks at their ends, as wide as they need to be.
    pub fn lines(&self) -> Vec<String> {
        let names = self.header.iter().map(|name| name.trim_start_matches('>'));
        let header: Vec<String> = names.map(str::to_owned).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&header).chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = all.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths.get(i).map_or(0, |w| w - cell.chars().count()));
                if i > 0 {
                    line.push_str("  ");
                }
                if self.header.get(i).is_some_and(|name| name.starts_with('>')) {
                    line.push_str(&pad);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&pad);
                }
            }
            line.trim_end().to_owned()
        };
        all.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let mut table = Table::new(&["name", ">rows"]);
        table.row(["db0", "5"]);
        table.row(["größer", "12345"]);
        let lines = ["name     rows", "db0         5", "größer  12345"];
        assert_eq!(table.lines(), lines);
    }

    #[test]
    fn wide_cells_are_shortened_where_there_is_a_width() {
        let table = || {
            let mut table = Table::new(&["instance", "host", ">rows"]);
            table.row([
                "db0",
                "orders-postgres-0.orders.svc.cluster.local:5432",
                "12345",
            ]);
            table.row(["db255", "127.0.0.1:5432", "5"]);
            table
        };
        let all = table().lines_within(None);
        assert_eq!(all, table().lines());
        assert_eq!(all, table().lines_within(Some(all[1].chars().count())));
        let short = table().lines_within(Some(40));
        assert!(
            short.iter().all(|line| line.chars().count() <= 40),
            "{short:#?}"
        );
        assert!(short[1].contains("orders-postgres-0."), "{short:#?}");
        assert!(short[2].contains("127.0.0.1:5432"), "{short:#?}");
        // Never to nothing.
        assert!(table().lines_within(Some(10))[1].contains("orders-…"));
    }
}
