//! Small Excel 97 and Excel 5 workbooks, record by record (\[MS-XLS\]), in a compound file.

use super::*;

/// A record: its kind, its length, its bytes.
pub(super) fn record(kind: u16, data: &[&[u8]]) -> Vec<u8> {
    let data = data.concat();
    let len = u16::try_from(data.len()).unwrap();
    [&kind.to_le_bytes()[..], &len.to_le_bytes(), &data].concat()
}

/// Where a cell is and which format it has.
fn at(row: u16, column: u16, format: u16) -> Vec<u8> {
    [row, column, format].map(u16::to_le_bytes).concat()
}

fn number(row: u16, column: u16, format: u16, value: f64) -> Vec<u8> {
    record(0x0203, &[&at(row, column, format), &value.to_le_bytes()])
}

/// An integer, shifted by two bits that say so.
fn rk(value: u32) -> [u8; 4] {
    (value << 2 | 2).to_le_bytes()
}

/// A formula whose result is in these eight bytes, and its code.
fn formula(place: [u16; 3], result: [u8; 8], code: &[u8]) -> Vec<u8> {
    let [row, column, format] = place;
    let len = u16::try_from(code.len()).unwrap().to_le_bytes();
    let at = at(row, column, format);
    record(0x0006, &[&at, &result, &[0; 6], &len, code])
}

/// `=1`
const ONE: [u8; 3] = [0x1e, 1, 0];
/// `=IF(1,"")`
const EMPTY_IF: [u8; 10] = [0x1e, 1, 0, 0x17, 0, 0, 0x42, 2, 1, 0];
/// `=""`
const EMPTY: [u8; 3] = [0x17, 0, 0];
/// Results that are no numbers: a text that follows, and the empty text.
const TEXT: [u8; 8] = [0, 0, 0, 0, 0, 0, 0xff, 0xff];
const BLANK: [u8; 8] = [3, 0, 0, 0, 0, 0, 0xff, 0xff];

/// The versions of the format: before Excel 97 texts are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Excel5,
    Excel97,
}

impl Version {
    fn begin(self, what: u16) -> Vec<u8> {
        let version: u16 = if self == Self::Excel5 { 0x0500 } else { 0x0600 };
        let words = [version, what, 0, 0].map(u16::to_le_bytes).concat();
        record(
            0x0809,
            &[&words, &[0; 8][..if self == Self::Excel5 { 0 } else { 8 }]],
        )
    }

    /// A text behind its length in two bytes, and its flags where there are any.
    fn text(self, text: &str) -> Vec<u8> {
        let len = u16::try_from(text.len()).unwrap().to_le_bytes();
        let flags = &[0][..usize::from(self == Self::Excel97)];
        [&len, flags, text.as_bytes()].concat()
    }

    fn label(self, row: u16, column: u16, value: &str) -> Vec<u8> {
        record(0x0204, &[&at(row, column, 0), &self.text(value)])
    }

    fn number_format(self, id: u16, code: &str) -> Vec<u8> {
        let text = match self {
            Self::Excel5 => [&[u8::try_from(code.len()).unwrap()], code.as_bytes()].concat(),
            Self::Excel97 => self.text(code),
        };
        record(0x041e, &[&id.to_le_bytes(), &text])
    }

    fn bound_sheet(self, at: usize, name: &str) -> Vec<u8> {
        let at = u32::try_from(at).unwrap().to_le_bytes();
        let text = self.text(name);
        let len = text[0];
        record(0x0085, &[&at, &[0, 0, len], &text[2..]])
    }

    /// A workbook of these cell formats, each with a number format, and sheets of these records.
    fn workbook(
        self,
        formats: &[u16],
        codes: &[(u16, &str)],
        sheets: &[(&str, Vec<u8>)],
    ) -> Vec<u8> {
        let end = record(0x000a, &[]);
        let mut globals = self.begin(5);
        globals.extend(record(0x0042, &[&1252_u16.to_le_bytes()]));
        for (id, code) in codes {
            globals.extend(self.number_format(*id, code));
        }
        for format in formats {
            globals.extend(record(0x00e0, &[&[0; 2], &format.to_le_bytes(), &[0; 16]]));
        }
        let names = sheets
            .iter()
            .map(|(name, _)| self.bound_sheet(0, name).len());
        let mut next = globals.len() + names.sum::<usize>() + end.len();
        let mut behind = Vec::new();
        for (name, records) in sheets {
            globals.extend(self.bound_sheet(next, name));
            let sheet = [&self.begin(0x10)[..], records, &end].concat();
            next += sheet.len();
            behind.extend(sheet);
        }
        let name = if self == Self::Excel5 {
            "Book"
        } else {
            "Workbook"
        };
        compound(name, &[globals, end, behind].concat())
    }

    /// As [`Self::workbook`], of one sheet whose first row is `code,name,price`.
    fn sheet(self, formats: &[u16], codes: &[(u16, &str)], records: &[Vec<u8>]) -> Vec<u8> {
        let headers = ["code", "name", "price"].iter();
        let headers = (0..)
            .zip(headers)
            .map(|(column, text)| self.label(0, column, text));
        let records = [headers.collect::<Vec<_>>().concat(), records.concat()].concat();
        self.workbook(formats, codes, &[("Products", records)])
    }
}

/// A compound file (\[MS-CFB\]) of one stream.
fn compound(name: &str, stream: &[u8]) -> Vec<u8> {
    const END: u32 = 0xffff_fffe;
    let mut stream = stream.to_vec();
    stream.resize(stream.len().max(4096).next_multiple_of(512), 0);
    let n_sectors = u32::try_from(stream.len() / 512).unwrap();
    // the table of sectors, the directory, and then the stream
    let mut fat = vec![0xffff_fffd, END];
    fat.extend((3..2 + n_sectors).chain([END]));
    assert!(fat.len() <= 128, "one sector of the table is enough");
    fat.resize(128, 0xffff_ffff);
    let mut header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
    header.extend([0; 16]);
    for word in [0x3e_u16, 3, 0xfffe, 9, 6, 0, 0, 0] {
        header.extend(word.to_le_bytes());
    }
    for word in [0_u32, 1, 1, 0, 4096, END, 0, END, 0, 0] {
        header.extend(word.to_le_bytes());
    }
    header.resize(512, 0xff);
    let len = u32::try_from(stream.len()).unwrap();
    let mut directory = entry("Root Entry", 5, 1, END, 0);
    directory.extend(entry(name, 2, 0xffff_ffff, 2, len));
    directory.resize(512, 0);
    let fat: Vec<u8> = fat.into_iter().flat_map(u32::to_le_bytes).collect();
    [header, fat, directory, stream].concat()
}

fn entry(name: &str, kind: u8, child: u32, start: u32, len: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let n_bytes = u16::try_from(bytes.len() + 2).unwrap();
    bytes.resize(64, 0);
    bytes.extend(n_bytes.to_le_bytes());
    bytes.extend([kind, 1]);
    for word in [0xffff_ffff, 0xffff_ffff, child] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([0; 36]);
    bytes.extend([start, len].map(u32::to_le_bytes).concat());
    bytes.resize(128, 0);
    bytes
}

const BOTH: [Version; 2] = [Version::Excel5, Version::Excel97];

/// Number formats of cell formats 0 to 5.
const FORMATS: [u16; 6] = [0, 164, 165, 14, 166, 167];
const CODES: [(u16, &str); 4] = [
    (164, "00000"),
    (165, "[Red]000;-000"),
    (166, "0.00"),
    (167, "\"USD \"0.00"),
];

#[test]
fn codes_in_number_cells_keep_the_zeros_that_are_shown() {
    for version in BOTH {
        let row = |row: u16, cells: Vec<u8>| [cells, version.label(row, 1, "x")].concat();
        let of_row = 7_u16.to_le_bytes();
        let records = [
            row(1, number(1, 0, 1, 123.0)),
            row(2, number(2, 0, 0, 123.0)),
            row(3, record(0x027e, &[&at(3, 0, 2), &rk(7)])),
            row(4, formula([4, 0, 1], 42_f64.to_le_bytes(), &ONE)),
            row(5, number(5, 0, 3, 45_000.0)),
            row(6, [number(6, 0, 4, 12.0), number(6, 2, 5, 9.5)].concat()),
            // two numbers in one record: columns 0 and 3
            record(
                0x00bd,
                &[
                    &of_row,
                    &[0, 0],
                    &[1, 0],
                    &rk(5),
                    &[0, 0],
                    &rk(0),
                    &[0, 0],
                    &rk(1),
                    &[1, 0],
                    &rk(77),
                    &[3, 0],
                ],
            ),
            version.label(7, 1, "x"),
        ];
        let headers = version.label(0, 3, "note");
        let bytes = version.sheet(
            &FORMATS,
            &CODES,
            &[vec![headers], records.to_vec()].concat(),
        );
        let found = read_ok(&Files::new().bytes(bytes));
        let expected = ["00123", "123", "007", "00042", "12", "00005"];
        assert_eq!(found.codes(), expected, "{version:?} {:?}", found.errors);
        assert_eq!(found.faults(), [(6, "code", "date_in_code")], "{version:?}");
        assert_eq!(
            found.rows[4].price.unwrap().to_string(),
            "9.5",
            "{version:?}"
        );
        let attributes = serde_json::json!(found.rows[5].attributes);
        assert_eq!(attributes["note"], "00077", "{version:?}");
    }
}

#[test]
fn zeros_of_one_sheet_are_not_those_of_another() {
    let version = Version::Excel97;
    let sheet = |format: u16| {
        let headers = [version.label(0, 0, "code"), version.label(0, 1, "name")].concat();
        let cells = [number(1, 0, format, 123.0), version.label(1, 1, "x")].concat();
        [headers, cells].concat()
    };
    let sheets = [("A", sheet(1)), ("B", sheet(0)), ("C", sheet(2))];
    let files = Files::new();
    let path = files.bytes(version.workbook(&FORMATS, &CODES, &sheets));
    for (name, code) in [("A", "00123"), ("B", "123"), ("C", "123")] {
        let options = Options {
            sheet: Some(name.into()),
            ..Options::default()
        };
        assert_eq!(read_all(&path, &options).unwrap().1.codes(), [code]);
    }
}

/// A chart inside the sheet has numbers of its own, and a cell that is written twice has the last
/// value and its format.
#[test]
fn a_cell_is_shown_as_its_last_record_says() {
    let version = Version::Excel97;
    let chart = [
        version.begin(0x20),
        number(1, 0, 1, 9.0),
        number(2, 0, 0, 9.0),
        record(0x000a, &[]),
    ];
    let records = [
        number(1, 0, 1, 1.0),
        number(1, 0, 0, 123.0),
        version.label(1, 1, "x"),
        number(2, 0, 0, 1.0),
        number(2, 0, 1, 123.0),
        version.label(2, 1, "x"),
        chart.concat(),
    ];
    let found = read_ok(&Files::new().bytes(version.sheet(&FORMATS, &CODES, &records)));
    assert_eq!(found.codes(), ["123", "00123"]);
}

/// A sheet of a product with a price for each of these codes, whose result is an empty text.
fn blank_results(codes: &[&[u8]]) -> ReadFile {
    let version = Version::Excel97;
    let rows = (1..).zip(codes).map(|(row, code)| {
        let cells = [
            number(row, 0, 0, f64::from(row)),
            version.label(row, 1, "x"),
            formula([row, 2, 0], BLANK, code),
        ];
        cells.concat()
    });
    let rows: Vec<Vec<u8>> = rows.collect();
    read_ok(&Files::new().bytes(version.sheet(&FORMATS, &CODES, &rows)))
}

#[test]
fn an_empty_text_in_the_place_of_a_number_is_no_value() {
    let found = blank_results(&[&EMPTY_IF, &EMPTY]);
    assert_eq!((found.codes(), found.faults()), (vec!["1", "2"], vec![]));
    // whoever wrote the third calculates nothing; what is `=""` is known all the same
    let found = blank_results(&[&EMPTY_IF, &EMPTY, &ONE]);
    let fault = "formula_without_value";
    assert_eq!(found.codes(), ["2"]);
    assert_eq!(found.faults(), [(2, "price", fault), (4, "price", fault)]);
}

/// The last row has nothing that calamine takes for a cell.
#[test]
fn a_formula_whose_text_is_missing_has_no_value() {
    for version in BOTH {
        let text = record(0x0207, &[&version.text("A")]);
        let records = [
            [
                formula([1, 0, 0], TEXT, &ONE),
                text,
                version.label(1, 1, "x"),
            ]
            .concat(),
            [version.label(2, 0, "B"), formula([2, 1, 0], TEXT, &ONE)].concat(),
            [
                version.label(3, 0, "C"),
                version.label(3, 1, "x"),
                formula([3, 2, 0], TEXT, &ONE),
            ]
            .concat(),
            formula([6, 1, 0], TEXT, &ONE),
        ];
        let found = read_ok(&Files::new().bytes(version.sheet(&FORMATS, &CODES, &records)));
        assert_eq!(found.codes(), ["A"], "{version:?}");
        let fault = "formula_without_value";
        let expected = [
            (3, "name", fault),
            (4, "price", fault),
            (7, "code", "required"),
            (7, "name", fault),
        ];
        assert_eq!(found.faults(), expected, "{version:?}");
    }
}

/// The length of a record, damaged, may lead to the begin of another one: what is between them would
/// be lost, and nobody would hear of it.
#[test]
fn a_record_that_takes_in_others_is_damage() {
    let version = Version::Excel97;
    let row = |row: u16, code: Vec<u8>| [code, version.label(row, 1, "x")].concat();
    let records = [
        row(1, number(1, 0, 0, 1.0)),
        row(2, record(0x027e, &[&at(2, 0, 0), &rk(2)])),
        row(3, record(0x0205, &[&at(3, 0, 0), &[1, 0]])),
        row(4, number(4, 0, 0, 4.0)),
    ];
    let good = version.sheet(&FORMATS, &CODES, &records);
    let files = Files::new();
    assert_eq!(read_ok(&files.bytes(&good)).codes().len(), 4);
    for (at, len) in [(0, 14), (1, 10), (2, 8)] {
        let place = memchr::memmem::find(&good, &records[at]).unwrap();
        let mut bytes = good.clone();
        // over the name in its row and the code in the next
        let behind = records[at].len() - 4 - len + 4 + usize::from(records[at + 1][2]);
        let longer = u16::try_from(len + behind).unwrap();
        bytes[place + 2..place + 4].copy_from_slice(&longer.to_le_bytes());
        let refusal = refused(&files.bytes(bytes));
        assert_eq!(refusal.code, Refusal::INVALID_FILE_FORMAT);
        assert!(refusal.message.contains("goes on over"), "{refusal}");
    }
}
