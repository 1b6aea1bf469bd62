//! Tables of text.

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
}
