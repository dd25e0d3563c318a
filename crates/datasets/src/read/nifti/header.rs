//! The 348 bytes before a NIfTI-1 volume.

use std::path::Path;

use super::{EXPECTED, Limits};
use crate::{Error, Result};

/// What a volume's header says. Axes are named as in images: a slice has rows `y` and columns `x`, slices follow along `z`;
/// in the file `x` runs fastest.
///
/// Where the volume lies comes from the `sform` if there is one, else from the `qform`, else from the voxels' size alone, as
/// the format's definition ranks them.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Values at each voxel, such as the modalities of a scan: the fourth axis, 1 if there is none.
    pub channels: usize,
    /// Number of slices `D`.
    pub depth: usize,
    /// Number of rows `H`.
    pub height: usize,
    /// Number of columns `W`.
    pub width: usize,
    /// How a value is stored.
    pub kind: Kind,
    /// Factor and summand of stored values.
    pub scaling: [f64; 2],
    /// Distance of neighbouring voxel centres along `[z, y, x]`, in mm.
    pub spacing: [f64; 3],
    /// From the voxel `(x, y, z, 1)` to mm, towards the patient's right, front and head: three rows.
    pub affine: [[f64; 4]; 3],
    offset: u64,
    big_endian: bool,
    /// What a volume of the same place is written with.
    raw: [u8; Self::BYTES],
}

/// How a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Int8,
    Uint8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float32,
    Float64,
}

impl Kind {
    const CODES: [(i16, Self, &'static str, usize); 10] = [
        (2, Self::Uint8, "uint8", 1),
        (4, Self::Int16, "int16", 2),
        (8, Self::Int32, "int32", 4),
        (16, Self::Float32, "float32", 4),
        (64, Self::Float64, "float64", 8),
        (256, Self::Int8, "int8", 1),
        (512, Self::Uint16, "uint16", 2),
        (768, Self::Uint32, "uint32", 4),
        (1024, Self::Int64, "int64", 8),
        (1280, Self::Uint64, "uint64", 8),
    ];

    fn row(self) -> (i16, Self, &'static str, usize) {
        *Self::CODES.iter().find(|row| row.1 == self).expect("every kind has a code")
    }

    /// The name that the format's documents use, such as `int16`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        self.row().3
    }
}

/// A header's fields in its byte order.
struct Fields<'a> {
    raw: &'a [u8; Header::BYTES],
    big_endian: bool,
}

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes: [u8; N] = self.raw[at..at + N].try_into().expect("a slice of N bytes");
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    fn short(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.bytes(at))
    }

    fn float(&self, at: usize) -> f64 {
        f64::from(f32::from_le_bytes(self.bytes(at)))
    }
}

impl Header {
    /// Bytes of a header.
    pub const BYTES: usize = 348;

    /// Reads the header's fields; `file` is only named in errors.
    ///
    /// # Errors
    /// If this is no NIfTI-1 header of a single file, if a type is not a plain number, an extent is not positive, there are
    /// more than four axes, there is more than `limits` allow, or scaling, spacing or place are no usable numbers.
    pub fn parse(file: &Path, raw: [u8; Self::BYTES], limits: &Limits) -> Result<Self> {
        let wrong = |found: String, expected: &str| Err(Error::file(file, found, expected));
        let big_endian = match [raw[0], raw[1], raw[2], raw[3]] {
            [0x5c, 0x01, 0, 0] => false,
            [0, 0, 0x01, 0x5c] => true,
            [0x1c, 0x02, 0, 0] | [0, 0, 0x02, 0x1c] => return wrong("a NIfTI-2 header".into(), EXPECTED),
            first => return wrong(format!("the first bytes {first:02x?}"), EXPECTED),
        };
        match &raw[344..] {
            b"n+1\0" => {}
            b"ni1\0" => return wrong("a header whose voxels lie in another file (.img)".into(), EXPECTED),
            magic => return wrong(format!("the magic {magic:02x?} at byte 344"), EXPECTED),
        }
        let fields = Fields { raw: &raw, big_endian };
        let axes = fields.short(40);
        if !(1..=7).contains(&axes) {
            return wrong(format!("{axes} axes"), "1 to 4 axes: x, y, z and channels");
        }
        let extents: Vec<i16> =
            (0..7).map(|axis| if axis < axes { fields.short(42 + 2 * axis as usize) } else { 1 }).collect();
        if extents.iter().any(|&extent| extent < 1) || extents[4..].iter().any(|&extent| extent > 1) {
            let found = format!("the extents {:?}", &extents[..axes as usize]);
            return wrong(found, "1 to 4 axes of positive extent: x, y, z and channels");
        }
        let [width, height, depth, channels] = std::array::from_fn(|axis| extents[axis] as usize);
        let (code, bits) = (fields.short(70), fields.short(72));
        let Some(&(_, kind, name, size)) = Kind::CODES.iter().find(|row| row.0 == code) else {
            return wrong(format!("data type {code}"), "integers or floating-point numbers, one a voxel");
        };
        if bits != 8 * size as i16 {
            return wrong(format!("{bits} bits a voxel"), &format!("{}, as {name} has", 8 * size));
        }
        limits.size(file, width as u64, height as u64)?;
        // Four extents of 15 bits: nothing here overflows. A volume is held as 32-bit numbers, or as it is stored.
        let values: u64 = [width, height, depth, channels].into_iter().map(|extent| extent as u64).product();
        let needed = values * size.max(4) as u64;
        if needed > limits.bytes {
            let found = format!("a header that says {width}x{height}x{depth}x{channels} of {name}");
            return wrong(found, &format!("at most {} bytes", limits.bytes));
        }
        let offset = fields.float(108);
        if !(offset >= 352.0 && offset.fract() == 0.0 && offset <= limits.bytes as f64) {
            return wrong(format!("voxels from byte {offset}"), "an offset of at least 352");
        }
        let scaling = match [fields.float(112), fields.float(116)] {
            // Both mean that there is no scaling; some libraries write the one, some the other.
            [slope, _] if slope == 0.0 || slope.is_nan() => [1.0, 0.0],
            [slope, intercept] if slope.is_finite() && intercept.is_finite() => [slope, intercept],
            [slope, intercept] => return wrong(format!("the scaling {slope}, {intercept}"), "finite numbers"),
        };
        let place = Place::read(&fields, [width, height, depth]);
        if !place.affine.iter().flatten().all(|value| value.is_finite())
            || place.spacing().iter().any(|&step| !(1e-6..=1e6).contains(&step))
        {
            let found = format!("the affine {:?} from its {}", place.affine, place.origin);
            return wrong(found, "finite numbers, and voxels of 1e-6 to 1e6 mm");
        }
        let [x, y, z] = place.spacing();
        Ok(Self {
            channels,
            depth,
            height,
            width,
            kind,
            scaling,
            spacing: [z, y, x],
            affine: place.affine,
            offset: offset as u64,
            big_endian,
            raw,
        })
    }

    /// The anatomical direction in which each of the axes x, y, z runs, nearest to it: `RAS` is right, front (anterior),
    /// head (superior); `LPI` the opposite.
    pub fn orientation(&self) -> String {
        let mut letters = [' '; 3];
        let [z, y, x] = self.spacing;
        let cosine = |row: usize, column: usize| self.affine[row][column] / [x, y, z][column];
        let (mut rows, mut columns) = (vec![0, 1, 2], vec![0, 1, 2]);
        // The clearest match first, so that an oblique volume gives each direction to one axis.
        while !rows.is_empty() {
            let pairs = rows.iter().flat_map(|&row| columns.iter().map(move |&column| (row, column)));
            let (row, column) = pairs
                .max_by(|&(a, b), &(c, d)| cosine(a, b).abs().total_cmp(&cosine(c, d).abs()))
                .expect("as many rows as columns are left");
            let [positive, negative] = [['R', 'L'], ['A', 'P'], ['S', 'I']][row];
            letters[column] = if cosine(row, column) < 0.0 { negative } else { positive };
            rows.retain(|&other| other != row);
            columns.retain(|&other| other != column);
        }
        letters.iter().collect()
    }

    /// Voxels times channels.
    pub fn values_count(&self) -> usize {
        self.channels * self.depth * self.height * self.width
    }

    /// `240x240x155x4 of int16`.
    pub(super) fn shape_in_words(&self) -> String {
        let Self { channels, depth, height, width, kind, .. } = self;
        format!("{width}x{height}x{depth}x{channels} of {}", kind.name())
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.values_count() as u64 * self.kind.bytes() as u64
    }

    /// `[z, y, x]` of a value.
    pub(super) fn place(&self, index: usize) -> [usize; 3] {
        [index / (self.height * self.width) % self.depth, index / self.width % self.height, index % self.width]
    }

    /// Stored bytes as scaled numbers.
    pub(super) fn values(&self, raw: &[u8]) -> Vec<f32> {
        match self.kind {
            Kind::Int8 => self.scaled(raw, |[byte]| f64::from(byte as i8)),
            Kind::Uint8 => self.scaled(raw, |[byte]| f64::from(byte)),
            Kind::Int16 => self.scaled(raw, |bytes| f64::from(i16::from_le_bytes(bytes))),
            Kind::Uint16 => self.scaled(raw, |bytes| f64::from(u16::from_le_bytes(bytes))),
            Kind::Int32 => self.scaled(raw, |bytes| f64::from(i32::from_le_bytes(bytes))),
            Kind::Uint32 => self.scaled(raw, |bytes| f64::from(u32::from_le_bytes(bytes))),
            Kind::Int64 => self.scaled(raw, |bytes| i64::from_le_bytes(bytes) as f64),
            Kind::Uint64 => self.scaled(raw, |bytes| u64::from_le_bytes(bytes) as f64),
            Kind::Float32 => self.scaled(raw, |bytes| f64::from(f32::from_le_bytes(bytes))),
            Kind::Float64 => self.scaled(raw, f64::from_le_bytes),
        }
    }

    fn scaled<const N: usize>(&self, raw: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f32> {
        let [slope, intercept] = self.scaling;
        let (values, _) = raw.as_chunks::<N>();
        let little = |mut bytes: [u8; N]| {
            if self.big_endian {
                bytes.reverse();
            }
            bytes
        };
        values.iter().map(|&bytes| (value(little(bytes)) * slope + intercept) as f32).collect()
    }

    /// The header of a volume of labels, one byte a voxel, in the same place and byte order, without extensions.
    pub(crate) fn for_labels(&self) -> [u8; Self::BYTES] {
        let mut raw = self.raw;
        let mut put = |at: usize, bytes: &[u8]| {
            raw[at..at + bytes.len()].copy_from_slice(bytes);
            if self.big_endian {
                raw[at..at + bytes.len()].reverse();
            }
        };
        for (axis, extent) in [3, self.width, self.height, self.depth, 1, 1, 1, 1].into_iter().enumerate() {
            put(40 + 2 * axis, &(extent as i16).to_le_bytes());
        }
        put(70, &2i16.to_le_bytes());
        put(72, &8i16.to_le_bytes());
        put(108, &352f32.to_le_bytes());
        put(112, &1f32.to_le_bytes());
        // Intercept, display range and largest and smallest value are the image's, not the labels'; so is the intent.
        for zero in [56, 60, 64, 116, 124, 128, 140, 144] {
            put(zero, &[0; 4]);
        }
        put(68, &[0; 2]);
        put(328, &[0; 16]);
        raw
    }
}

/// Where a volume lies.
struct Place {
    affine: [[f64; 4]; 3],
    /// Which of the header's forms it is from.
    origin: &'static str,
}

impl Place {
    fn read(fields: &Fields, extent: [usize; 3]) -> Self {
        // Metres and micrometres become mm; no unit is taken for mm, as everyone does.
        let mm = match fields.raw[123] & 7 {
            1 => 1e3,
            3 => 1e-3,
            _ => 1.0,
        };
        let (mut affine, origin) = if fields.short(254) > 0 {
            let row = |row: usize| std::array::from_fn(|column| fields.float(280 + 16 * row + 4 * column));
            ([row(0), row(1), row(2)], "sform")
        } else {
            let size: [f64; 3] = std::array::from_fn(|axis| {
                let step = fields.float(80 + 4 * axis).abs();
                // An axis of one voxel is often left without a size.
                if step == 0.0 && extent[axis] == 1 { 1.0 } else { step }
            });
            if fields.short(252) > 0 {
                (quaternion(fields, size), "qform")
            } else {
                let row = |row: usize| std::array::from_fn(|column| if row == column { size[row] } else { 0.0 });
                ([row(0), row(1), row(2)], "voxel size")
            }
        };
        affine.iter_mut().flatten().for_each(|value| *value *= mm);
        Self { affine, origin }
    }

    /// Length of a step along x, y, z.
    fn spacing(&self) -> [f64; 3] {
        std::array::from_fn(|column| self.affine.iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt())
    }
}

/// The rotation of a unit quaternion whose real part is left out, times the voxels' size, and the offset.
fn quaternion(fields: &Fields, [x, y, z]: [f64; 3]) -> [[f64; 4]; 3] {
    let [mut b, mut c, mut d] = [256, 260, 264].map(|at| fields.float(at));
    let square = b * b + c * c + d * d;
    let a = if square > 1.0 {
        // Rounding to 32 bits can leave half a turn a little longer than it may be.
        let length = square.sqrt();
        (b, c, d) = (b / length, c / length, d / length);
        0.0
    } else {
        (1.0 - square).sqrt()
    };
    // A negative `pixdim[0]` says that the third axis is mirrored.
    let z = if fields.float(76) < 0.0 { -z } else { z };
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    std::array::from_fn(|row| {
        let [p, q, r] = rotation[row];
        [p * x, q * y, r * z, fields.float(268 + 4 * row)]
    })
}
