//! Whose file decides where tables live, when routers have different ones.
//!
//! The home keeps the places that are *agreed on*. A router moves tables only while its own file wants
//! exactly these. They change in two ways: somebody applies a map by hand, or a router whose file
//! wanted the agreed places sees that file change, and puts the new ones in their stead, in one
//! comparison and exchange. So every change of what is agreed on is one edit of a file: routers with
//! different files can't move tables to and fro, whoever starts, dies, or gets an edit late. A router
//! that starts with another file than what is agreed on has seen no edit: it moves nothing and says so.

/// What this router is to what is agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its file wants what is agreed on.
    Agrees,
    /// Its file was edited: put what it wants in the place of this.
    Propose(Option<String>),
    /// Its file wants something else, and has no say.
    Differs,
    /// Nothing is agreed on, and nobody has edited this file.
    Nothing,
}

/// What this router has seen of its own file.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    file: String,
    /// What was agreed on when its file wanted that last.
    agreed: Option<String>,
    /// The file has changed since, while this router ran.
    edited: bool,
}

impl Standing {
    pub fn new(file: String) -> Self {
        Self {
            file,
            agreed: None,
            edited: false,
        }
    }

    /// What the file wants now.
    pub fn file_wants(&mut self, places: &str) {
        if self.file != places {
            places.clone_into(&mut self.file);
            self.edited = true;
        }
    }

    /// What became of a proposal: whether the file is what is agreed on now, or another was first. The
    /// edit has had its chance either way: it does not count again when others have gone back, even
    /// if this router has not looked in between.
    pub fn proposed(&mut self, is_agreed: bool) {
        self.agreed = is_agreed.then(|| self.file.clone());
        self.edited = false;
    }

    /// Compares with what is agreed on. `settled`: every table is known to be where this file wants it,
    /// so that agreeing on that moves nothing.
    pub fn judge(&mut self, agreed: Option<&str>, settled: bool) -> Verdict {
        match agreed {
            Some(agreed) if agreed == self.file => {
                self.agreed = Some(self.file.clone());
                self.edited = false;
                Verdict::Agrees
            }
            None if self.edited || settled => Verdict::Propose(None),
            None => Verdict::Nothing,
            Some(agreed) if self.edited && self.agreed.as_deref() == Some(agreed) => {
                Verdict::Propose(Some(agreed.to_owned()))
            }
            Some(_) => {
                // The edit had its chance: it does not count later, when others have gone back.
                self.edited = false;
                self.agreed = None;
                Verdict::Differs
            }
        }
    }
}

#[cfg(test)]
mod tests;
