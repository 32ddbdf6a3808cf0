//! An array that is read field by field. Fields of a later version stand at its end and are skipped.

use super::{Fields, Reader, Rules, Wire, walk};
use crate::frame::{FrameError, Problem};

pub(crate) struct Items<'r> {
    reader: &'r mut Reader,
    left: u32,
}

impl<'r> Items<'r> {
    /// Reads the front of an array.
    pub(crate) fn begin(reader: &'r mut Reader) -> Result<Items<'r>, FrameError> {
        let left = reader.array()?;
        Ok(Items { reader, left })
    }

    /// The next field; `place` names it in errors.
    pub(crate) fn next<T: Wire>(&mut self, place: &'static str) -> Result<T, FrameError> {
        self.next_with(place, T::take)
    }

    /// The next field, which older versions do not send.
    pub(crate) fn next_or_default<T: Wire + Default>(
        &mut self,
        place: &'static str,
    ) -> Result<T, FrameError> {
        if self.left == 0 { Ok(T::default()) } else { self.next(place) }
    }

    /// The next field, read by `take`.
    pub(crate) fn next_with<T>(
        &mut self,
        place: &'static str,
        take: impl FnOnce(&mut Reader) -> Result<T, FrameError>,
    ) -> Result<T, FrameError> {
        if self.left == 0 {
            return Err(FrameError::from(Problem::Missing).at(place));
        }
        self.left -= 1;
        take(self.reader).map_err(|error| error.at(place))
    }

    /// The fields of a struct that stand in this array.
    pub(crate) fn fields<T: Fields>(&mut self) -> Result<T, FrameError> {
        T::take_fields(self)
    }

    /// Skips the fields that this version does not know.
    pub(crate) fn end(self) -> Result<(), FrameError> {
        for _ in 0..self.left {
            walk(self.reader, Rules::UNKNOWN_FIELD)
                .map_err(|error| error.at("an unknown field"))?;
        }
        Ok(())
    }
}
