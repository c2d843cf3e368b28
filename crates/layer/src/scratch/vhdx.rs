//! A dynamic VHDX that holds a few pieces of a disk.
//! Source: MS-VHDX 2 "Structures"; section numbers below are its own.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt};

use cofferdam_image::crc32c::checksum_without;

use super::{Ids, Piece};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
/// Where things are: headers and region tables twice (2.2), then log, metadata and block table.
const HEADERS: [u64; 2] = [64 * KIB, 128 * KIB];
const REGION_TABLES: [u64; 2] = [192 * KIB, 256 * KIB];
const LOG: u64 = MIB;
const METADATA: u64 = 2 * MIB;
const TABLE: u64 = 3 * MIB;
/// Bytes of the payload blocks: small ones keep the file small, large ones the table.
const SMALL_BLOCK: u64 = 8 * MIB;
const LARGE_BLOCK: u64 = 64 * MIB;
const LARGE_DISK: u64 = 1 << 40;
const SECTOR: u64 = 512;
/// A block that is there (2.5.1.1), beside its place in MiB.
const PRESENT: u64 = 6;

/// GUIDs as they are in the file: the first three numbers little-endian.
const BLOCK_TABLE_REGION: [u8; 16] = guid(0x2DC2_7766, 0xF623, 0x4200, 0x9D64_115E_9BFD_4A08);
const METADATA_REGION: [u8; 16] = guid(0x8B7C_A206, 0x4790, 0x4B9A, 0xB8FE_575F_050F_886E);
const FILE_PARAMETERS: [u8; 16] = guid(0xCAA1_6737, 0xFA36, 0x4D43, 0xB3B6_33F0_AA44_E76B);
const DISK_SIZE: [u8; 16] = guid(0x2FA5_4224, 0xCD1B, 0x4876, 0xB211_5DBE_D83B_F4B8);
const DISK_ID: [u8; 16] = guid(0xBECA_12AB, 0xB2E6, 0x4523, 0x93EF_C309_E000_C746);
const LOGICAL_SECTOR: [u8; 16] = guid(0x8141_BF1D, 0xA96F, 0x4709, 0xBA47_F233_A8FA_AB5F);
const PHYSICAL_SECTOR: [u8; 16] = guid(0xCDA3_48C7, 0x445D, 0x4471, 0x9CC9_E988_5251_C556);
/// Flags of a metadata item (2.6.1.2): about the disk; must be understood.
const ABOUT_DISK: u32 = 2;
const REQUIRED: u32 = 4;

const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [d0, d1, d2, d3, d4, d5, d6, d7] = d.to_be_bytes();
    [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7]
}

/// Writes the disk of `size` bytes, a multiple of a sector, into an empty file.
pub(super) fn write(file: &File, size: u64, pieces: &[Piece], ids: &Ids) -> io::Result<()> {
    let block = if size < LARGE_DISK {
        SMALL_BLOCK
    } else {
        LARGE_BLOCK
    };
    let blocks = size.div_ceil(block);
    // After so many payload blocks, the table has an entry for their sector bitmap (2.5), which only a differencing disk
    // has.
    let ratio = (1 << 23) * SECTOR / block;
    let entries = blocks + (blocks - 1) / ratio;
    let table_bytes = (entries * 8).next_multiple_of(MIB);
    let mut end = TABLE + table_bytes;
    let mut places = BTreeMap::new();
    for piece in pieces {
        let mut done = 0;
        while done < piece.bytes.len() {
            let at = piece.at + done as u64;
            let length = ((block - at % block) as usize).min(piece.bytes.len() - done);
            let place = *places.entry(at / block).or_insert_with(|| {
                end += block;
                end - block
            });
            file.write_all_at(&piece.bytes[done..done + length], place + at % block)?;
            done += length;
        }
    }
    for (number, place) in &places {
        let entry = (place / MIB) << 20 | PRESENT;
        let index = number + number / ratio;
        file.write_all_at(&entry.to_le_bytes(), TABLE + index * 8)?;
    }
    file.set_len(end)?;
    write_metadata(file, size, block, ids)?;
    let regions = region_table(table_bytes);
    for at in REGION_TABLES {
        file.write_all_at(&regions, at)?;
    }
    for (sequence, at) in HEADERS.into_iter().enumerate() {
        file.write_all_at(&header(sequence as u64 + 1, ids), at)?;
    }
    let mut identifier = b"vhdxfile".to_vec();
    identifier.extend("cofferdam".encode_utf16().flat_map(u16::to_le_bytes));
    file.write_all_at(&identifier, 0)
}

/// 2.2.2: the log is empty.
fn header(sequence: u64, ids: &Ids) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"head");
    put(8, &sequence.to_le_bytes());
    put(16, &ids.file_write);
    put(32, &ids.data_write);
    put(66, &1u16.to_le_bytes()); // version
    put(68, &(MIB as u32).to_le_bytes()); // bytes of the log
    put(72, &LOG.to_le_bytes());
    with_checksum(bytes)
}

/// 2.2.3.
fn region_table(table_bytes: u64) -> Vec<u8> {
    let mut bytes = vec![0; 64 * KIB as usize];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"regi");
    put(8, &2u32.to_le_bytes());
    for (at, id, start, length) in [
        (16, BLOCK_TABLE_REGION, TABLE, table_bytes),
        (48, METADATA_REGION, METADATA, MIB),
    ] {
        put(at, &id);
        put(at + 16, &start.to_le_bytes());
        put(at + 24, &(length as u32).to_le_bytes());
        put(at + 28, &1u32.to_le_bytes()); // required
    }
    with_checksum(bytes)
}

/// The checksum is at byte 4, and counts as zero.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = checksum_without(&bytes, 4);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// 2.6: the table of items, and from 64 KiB on the items.
fn write_metadata(file: &File, size: u64, block: u64, ids: &Ids) -> io::Result<()> {
    const ITEMS: u32 = 64 << 10;
    let items: [([u8; 16], Vec<u8>, u32); 5] = [
        // Nothing is left allocated, and there is no parent.
        (
            FILE_PARAMETERS,
            [(block as u32).to_le_bytes(), [0; 4]].concat(),
            REQUIRED,
        ),
        (DISK_SIZE, size.to_le_bytes().to_vec(), ABOUT_DISK | REQUIRED),
        (DISK_ID, ids.disk.to_vec(), ABOUT_DISK | REQUIRED),
        (
            LOGICAL_SECTOR,
            (SECTOR as u32).to_le_bytes().to_vec(),
            ABOUT_DISK | REQUIRED,
        ),
        (
            PHYSICAL_SECTOR,
            4096u32.to_le_bytes().to_vec(),
            ABOUT_DISK | REQUIRED,
        ),
    ];
    let mut table = b"metadata\0\0".to_vec();
    table.extend_from_slice(&(items.len() as u16).to_le_bytes());
    table.resize(32, 0);
    let mut data = Vec::new();
    for (id, value, flags) in &items {
        table.extend_from_slice(id);
        table.extend_from_slice(&(ITEMS + data.len() as u32).to_le_bytes());
        table.extend_from_slice(&(value.len() as u32).to_le_bytes());
        table.extend_from_slice(&flags.to_le_bytes());
        table.extend_from_slice(&[0; 4]);
        data.extend_from_slice(value);
    }
    file.write_all_at(&table, METADATA)?;
    file.write_all_at(&data, METADATA + u64::from(ITEMS))
}
