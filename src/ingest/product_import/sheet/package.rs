//! Where the sheets of an xlsx lie: the archive's relationships and the workbook's list of sheets.
//!
//! Ambiguous files are read as calamine reads them (the last relationship of an
//! id, attributes as they are spelt), so that the part that is looked at before
//! is the part that it reads.

use std::collections::{HashMap, HashSet};
use std::io::{BufReader, Read};

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesStart, Event};

use super::super::row::cell::Epoch;
use super::archive::{self, Archive};
use super::refusal::Refusal;
use super::rows::SheetName;

/// Biggest of these small parts; a workbook of 10,000 named ranges has one of a megabyte.
const MAX_BYTES: u64 = 64 << 20;

/// Most sheets and most relationships that are read: there are no more parts.
const MOST_NAMED: u64 = archive::MAX_ENTRIES;

/// A sheet and the part it lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SheetPart {
    /// The name on the tab.
    pub(super) name: String,
    /// Whether the tab is shown.
    pub(super) is_visible: bool,
    /// The entry of the archive; `None` when it is not there.
    pub(super) part: Option<String>,
}

/// What a workbook's small parts say about the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// The sheets with cells, in the order of their tabs.
    pub(super) sheets: Vec<SheetPart>,
    /// The part of shared strings, where there is one.
    pub(super) strings: Option<String>,
    /// The part of styles, where there is one.
    pub(super) styles: Option<String>,
    /// What day 0 of its serial dates is.
    pub(super) epoch: Epoch,
}

impl Package {
    /// Returns the sheets as a workbook names them.
    pub(super) fn sheet_names(&self) -> Vec<SheetName> {
        let sheets = self.sheets.iter();
        sheets
            .map(|sheet| SheetName {
                name: sheet.name.clone(),
                is_visible: sheet.is_visible,
            })
            .collect()
    }

    /// Returns the part of the first sheet of a name.
    ///
    /// # Errors
    ///
    /// [`Refusal::INVALID_FILE_FORMAT`] when it is not there.
    pub(super) fn part(&self, sheet: &str) -> Result<&str, Refusal> {
        let found = self.sheets.iter().find(|found| found.name == sheet);
        found
            .and_then(|sheet| sheet.part.as_deref())
            .ok_or_else(|| Refusal::format(format!("the sheet {sheet:.100} has no part")))
    }
}

/// Reads where the parts of an xlsx lie.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] when the parts that say so are missing or damaged,
/// [`Refusal::ARCHIVE_LIMITS`] when they are too big, name too much, or two sheets lie in one part: so
/// many times it would be inflated.
pub(super) fn read(archive: &mut Archive) -> Result<Package, Refusal> {
    let root = relationships(archive, "_rels/.rels")?;
    let workbook = root
        .into_iter()
        .rfind(|relation| relation.kind.ends_with("/officeDocument"))
        .map(|relation| relation.target.trim_start_matches('/').to_owned())
        .ok_or_else(|| Refusal::format("the archive names no workbook"))?;
    let (folder, file) = workbook.rsplit_once('/').unwrap_or(("", &workbook));
    let parts = relationships(archive, &join(folder, &format!("_rels/{file}.rels")))?;
    let mut package = Package {
        sheets: Vec::new(),
        strings: named(archive, folder, "sharedStrings", &parts),
        styles: named(archive, folder, "styles", &parts),
        epoch: Epoch::Y1900,
    };
    let parts: HashMap<String, Relation> = parts
        .into_iter()
        .map(|relation| (relation.id.clone(), relation))
        .collect();
    each_start(archive, &workbook, |element| {
        match element.local_name().as_ref() {
            "sheet" => {
                refuse_more(package.sheets.len(), "sheets")?;
                package.sheets.extend(sheet(element, folder, &parts));
            }
            "workbookPr" => match raw(element, "date1904").as_deref() {
                Some("1" | "true") => package.epoch = Epoch::Y1904,
                Some(_) => package.epoch = Epoch::Y1900,
                None => {}
            },
            _ => {}
        }
        Ok(())
    })?;
    find_parts(archive, &mut package.sheets)?;
    Ok(package)
}

/// Gives the sheets' parts the names that the archive has for them.
fn find_parts(archive: &Archive, sheets: &mut [SheetPart]) -> Result<(), Refusal> {
    let entries = archive::index(archive);
    let mut taken = HashSet::new();
    for sheet in sheets {
        let named = sheet.part.take();
        let named = named.map(|part| archive::plain(part.trim_start_matches('/')));
        let Some(entry) = named.and_then(|named| entries.get(&named)) else {
            continue;
        };
        if !taken.insert(entry) {
            return Err(Refusal::archive(format!(
                "two sheets of the workbook lie in one part, {entry:.100}"
            )));
        }
        sheet.part = Some(entry.clone());
    }
    Ok(())
}

fn refuse_more(n: usize, what: &str) -> Result<(), Refusal> {
    if n as u64 >= MOST_NAMED {
        return Err(Refusal::archive(format!(
            "the workbook names more than {MOST_NAMED} {what}"
        )));
    }
    Ok(())
}

/// Returns what a `sheet` of the workbook says, `None` for chart sheets and dialogs, which are
/// sheets without cells.
fn sheet(
    element: &BytesStart<'_>,
    folder: &str,
    parts: &HashMap<String, Relation>,
) -> Option<SheetPart> {
    let relation = raw(element, "id").and_then(|id| parts.get(&id));
    if relation.is_some_and(|relation| !relation.kind.ends_with("/worksheet")) {
        return None;
    }
    Some(SheetPart {
        name: attribute(element, "name").unwrap_or_default(),
        is_visible: raw(element, "state").is_none_or(|state| state == "visible"),
        part: relation.map(|relation| join(folder, &relation.target)),
    })
}

/// Returns the part of the usual name, which every reader takes, else the one a relationship names.
fn named(archive: &Archive, folder: &str, kind: &str, parts: &[Relation]) -> Option<String> {
    archive::find(archive, &join(folder, &format!("{kind}.xml"))).or_else(|| {
        let suffix = format!("/{kind}");
        let mut parts = parts.iter();
        let relation = parts.rfind(|relation| relation.kind.ends_with(&suffix))?;
        archive::find(archive, &join(folder, &relation.target))
    })
}

/// What one part of a package is to another.
pub(super) struct Relation {
    pub(super) id: String,
    kind: String,
    pub(super) target: String,
}

/// Reads a part of relationships.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] when it is missing or damaged, [`Refusal::ARCHIVE_LIMITS`] when
/// there are too many.
pub(super) fn relationships(archive: &mut Archive, name: &str) -> Result<Vec<Relation>, Refusal> {
    let mut found = Vec::new();
    each_start(archive, name, |element| {
        if element.local_name().as_ref() == "Relationship" {
            refuse_more(found.len(), "relationships")?;
            let text = |name| raw(element, name).unwrap_or_default();
            found.push(Relation {
                id: text("Id"),
                kind: text("Type"),
                target: text("Target"),
            });
        }
        Ok(())
    })?;
    Ok(found)
}

/// Returns the entry of a target that is seen from a folder.
pub(super) fn join(folder: &str, target: &str) -> String {
    match target.strip_prefix('/') {
        Some(absolute) => absolute.to_owned(),
        None if folder.is_empty() => target.to_owned(),
        None => format!("{folder}/{target}"),
    }
}

/// Calls `f` with every element of a small part.
fn each_start(
    archive: &mut Archive,
    name: &str,
    mut f: impl FnMut(&BytesStart<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let name = archive::find(archive, name)
        .ok_or_else(|| Refusal::format(format!("the workbook has no part {name:.100}")))?;
    let bytes = archive::read_part(archive, &name, MAX_BYTES)?;
    let mut reader = Reader::from_reader(BufReader::new(bytes.as_slice()));
    reader.config_mut().check_end_names = false;
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer) {
            Ok(Event::Start(element) | Event::Empty(element)) => f(&element)?,
            Ok(Event::Eof) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(Refusal::damaged(&name, &error)),
        }
    }
}

/// Returns the last attribute of a name, whatever its prefix, as it is spelt.
fn raw(element: &BytesStart<'_>, name: &str) -> Option<String> {
    last(element, name).map(|attribute| attribute.value.into_owned())
}

/// Returns the last attribute of a name, whatever its prefix, with its entities resolved.
pub(super) fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let value = last(element, name)?;
    let value = value.normalized_value(XmlVersion::Explicit1_0).ok()?;
    Some(value.into_owned())
}

fn last<'e>(element: &'e BytesStart<'_>, name: &str) -> Option<Attribute<'e>> {
    let mut attributes = element.attributes();
    let attributes = attributes.with_checks(false).filter_map(Result::ok);
    attributes
        .filter(|attribute| attribute.key.local_name().as_ref() == name)
        .last()
}

/// Reads a part's XML event by event, with a start and an end for each empty element; it fails when
/// more than `limit` bytes pass without a `<`.
pub(super) fn events<R: Read>(part: R, limit: usize) -> Reader<BufReader<ShortRuns<R>>> {
    let mut reader = Reader::from_reader(BufReader::new(ShortRuns::new(part, limit)));
    reader.config_mut().check_end_names = false;
    reader.config_mut().expand_empty_elements = true;
    reader
}

/// A reader that fails when more than `limit` bytes pass without a `<`, so that an XML parser on
/// top of it never buffers more than that.
pub(super) struct ShortRuns<R> {
    from: R,
    run: usize,
    limit: usize,
}

impl<R> ShortRuns<R> {
    /// Limits the runs of `from`.
    pub(super) fn new(from: R, limit: usize) -> Self {
        Self {
            from,
            run: 0,
            limit,
        }
    }
}

impl<R: Read> Read for ShortRuns<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n_read = self.from.read(out)?;
        let bytes = out.get(..n_read).unwrap_or_default();
        self.run += memchr::memchr(b'<', bytes).unwrap_or(n_read);
        if self.run > self.limit {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "one piece of XML is too long",
            ));
        }
        if let Some(last) = memchr::memrchr(b'<', bytes) {
            self.run = n_read - last;
        }
        Ok(n_read)
    }
}
