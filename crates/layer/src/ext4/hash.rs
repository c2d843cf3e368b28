//! The hash of names in an indexed directory: half MD4 over unsigned bytes, without a seed.
//! Source: Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories"; `lib/ext2fs/dirhash.c` says the same.

/// MD4's initial state (RFC 1320 §3.3).
const STATE: [u32; 4] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];
/// Constants of the second and third round (RFC 1320 §3.4).
const ROUND_2: u32 = 0x5A82_7999;
const ROUND_3: u32 = 0x6ED9_EBA1;
/// Bytes of a name that one transformation takes.
const PIECE: usize = 32;
/// The hash that means the end of a directory, and may be no name's.
const END: u32 = 0x7FFF_FFFF << 1;

/// Major and minor hash of a name.
pub(super) fn of_name(name: &[u8]) -> (u32, u32) {
    let mut state = STATE;
    let mut rest = name;
    while !rest.is_empty() {
        transform(&mut state, &words(rest));
        rest = &rest[rest.len().min(PIECE)..];
    }
    let major = state[1] & !1;
    (if major == END { END - 2 } else { major }, state[2])
}

/// The next 32 bytes as words, the first byte highest; what is missing is the length of all that is left, repeated.
fn words(rest: &[u8]) -> [u32; 8] {
    let length = rest.len() as u32 & 0xFF;
    let padding = length | length << 8 | length << 16 | length << 24;
    let mut words = [padding; 8];
    for (word, bytes) in words.iter_mut().zip(rest[..rest.len().min(PIECE)].chunks(4)) {
        *word = bytes
            .iter()
            .fold(padding, |word, byte| (word << 8).wrapping_add(u32::from(*byte)));
    }
    words
}

fn transform(state: &mut [u32; 4], x: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    let rounds: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (
            |x, y, z| z ^ (x & (y ^ z)),
            0,
            [0, 1, 2, 3, 4, 5, 6, 7],
            [3, 7, 11, 19],
        ),
        (
            |x, y, z| (x & y).wrapping_add((x ^ y) & z),
            ROUND_2,
            [1, 3, 5, 7, 0, 2, 4, 6],
            [3, 5, 9, 13],
        ),
        (
            |x, y, z| x ^ y ^ z,
            ROUND_3,
            [3, 7, 2, 6, 1, 5, 0, 4],
            [3, 9, 11, 15],
        ),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in rounds {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a
                .wrapping_add(mix(b, c, d))
                .wrapping_add(x[word])
                .wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}
