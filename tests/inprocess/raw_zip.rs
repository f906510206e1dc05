//! Zip archives byte by byte (APPNOTE.TXT), because no library writes the ones that a test of bad archives needs.

/// One entry, stored unless a test has it packed. What a test does not set is as it should be.
#[derive(Debug, Clone)]
pub struct RawEntry {
    name: Vec<u8>,
    data: Vec<u8>,
    crc: u32,
    /// `st_mode`, in the upper half of the external attributes.
    mode: u32,
    zip64: bool,
    method: u16,
    /// What the directory says of the uncompressed size.
    size: u64,
}

impl RawEntry {
    pub fn new(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        let data = data.as_ref().to_vec();
        Self {
            name: name.as_ref().to_vec(),
            crc: crc32(&data),
            mode: 0o100_644,
            zip64: false,
            method: 0,
            size: data.len() as u64,
            data,
        }
    }

    pub fn wrong_crc(mut self) -> Self {
        self.crc ^= 1;
        self
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sizes and offset in the ZIP64 extra field, where 32 bits would do.
    pub fn zip64(mut self) -> Self {
        self.zip64 = true;
        self
    }

    pub fn method(mut self, method: u16) -> Self {
        self.method = method;
        self
    }

    /// What `new` was given, packed by a method of this number.
    pub fn packed(mut self, method: u16, data: impl AsRef<[u8]>) -> Self {
        self.method = method;
        self.data = data.as_ref().to_vec();
        self
    }

    pub fn claiming(mut self, size: u64) -> Self {
        self.size = size;
        self.zip64 = true;
        self
    }
}

/// The archive of `entries`, in order.
pub fn raw_zip(entries: &[RawEntry]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let offset = archive.len() as u64;
        archive.extend(0x0403_4b50_u32.to_le_bytes());
        common(&mut archive, entry);
        let extra = if entry.zip64 { zip64_extra(&[entry.size, entry.data.len() as u64]) } else { Vec::new() };
        archive.extend((extra.len() as u16).to_le_bytes());
        archive.extend(&entry.name);
        archive.extend(extra);
        archive.extend(&entry.data);

        directory.extend(0x0201_4b50_u32.to_le_bytes());
        // Made on Unix, so that the mode counts.
        directory.extend((3_u16 << 8 | 45).to_le_bytes());
        common(&mut directory, entry);
        let extra = if entry.zip64 { zip64_extra(&[entry.size, entry.data.len() as u64, offset]) } else { Vec::new() };
        directory.extend((extra.len() as u16).to_le_bytes());
        // No comment, first disk, no internal attributes.
        directory.extend([0; 6]);
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(if entry.zip64 { u32::MAX } else { offset as u32 }.to_le_bytes());
        directory.extend(&entry.name);
        directory.extend(extra);
    }
    let start = archive.len() as u64;
    let size = directory.len() as u64;
    let count = entries.len() as u64;
    archive.extend(directory);
    let zip64 = entries.iter().any(|entry| entry.zip64);
    if zip64 {
        zip64_end(&mut archive, count, size, start);
    }
    archive.extend(0x0605_4b50_u32.to_le_bytes());
    archive.extend([0; 4]);
    let small = |value: u64| if zip64 { u16::MAX } else { value as u16 };
    archive.extend(small(count).to_le_bytes());
    archive.extend(small(count).to_le_bytes());
    archive.extend(if zip64 { u32::MAX } else { size as u32 }.to_le_bytes());
    archive.extend(if zip64 { u32::MAX } else { start as u32 }.to_le_bytes());
    archive.extend([0; 2]);
    archive
}

/// What local header and directory have in common: from the version to the length of the name.
fn common(out: &mut Vec<u8>, entry: &RawEntry) {
    // Bit 11: the name is UTF-8, where it is.
    let flags: u16 = if std::str::from_utf8(&entry.name).is_ok() { 1 << 11 } else { 0 };
    out.extend(45_u16.to_le_bytes());
    out.extend(flags.to_le_bytes());
    out.extend(entry.method.to_le_bytes());
    // 1980-01-01 00:00.
    out.extend([0, 0, 0x21, 0]);
    out.extend(entry.crc.to_le_bytes());
    let (stored, size) = match entry.zip64 {
        true => (u32::MAX, u32::MAX),
        false => (entry.data.len() as u32, entry.size as u32),
    };
    out.extend(stored.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend((entry.name.len() as u16).to_le_bytes());
}

fn zip64_extra(values: &[u64]) -> Vec<u8> {
    let mut extra = vec![1, 0];
    extra.extend((values.len() as u16 * 8).to_le_bytes());
    values.iter().for_each(|value| extra.extend(value.to_le_bytes()));
    extra
}

/// The ZIP64 end of central directory, and its locator.
fn zip64_end(archive: &mut Vec<u8>, count: u64, size: u64, start: u64) {
    let at = archive.len() as u64;
    archive.extend(0x0606_4b50_u32.to_le_bytes());
    archive.extend(44_u64.to_le_bytes());
    archive.extend([45, 3, 45, 0]);
    archive.extend([0; 8]);
    for value in [count, count, size, start] {
        archive.extend(value.to_le_bytes());
    }
    archive.extend(0x0706_4b50_u32.to_le_bytes());
    archive.extend([0; 4]);
    archive.extend(at.to_le_bytes());
    archive.extend(1_u32.to_le_bytes());
}

fn crc32(data: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, data) as u32
}
