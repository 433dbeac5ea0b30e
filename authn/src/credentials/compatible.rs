//! The ASCII text that some backend reads for a non-ASCII character: by compatibility forms (Unicode NFKC: full-width
//! and mathematical letters), by case folding (long s, the Kelvin sign, dotless i, sharp s), without marks as in
//! database collations, or by Windows' best fit of its code pages.

/// In lower case. None: there is no such text.
pub(super) fn ascii(code_point: u32) -> Option<&'static str> {
    if let Ok(index) = SEVERAL.binary_search_by_key(&code_point, |(from, _)| *from) {
        return SEVERAL.get(index).map(|(_, text)| *text);
    }
    let run = ONE.partition_point(|(first, _)| *first <= code_point).checked_sub(1)?;
    let (first, letters) = ONE.get(run)?;
    let index = usize::try_from(code_point.checked_sub(*first)?).ok()?;
    letters.get(index..index.checked_add(1)?).filter(|letter| *letter != "?")
}

/// Combining marks, and characters that Unicode tells readers to ignore.
pub(super) fn is_ignored(code_point: u32) -> bool {
    matches!(
        code_point,
        0xad | 0x300..=0x36f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x1ab0..=0x1aff
            | 0x1dc0..=0x1dff | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0x20d0..=0x20ff | 0x3164 | 0xfe00..=0xfe0f
            | 0xfe20..=0xfe2f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0xe0000..=0xe0fff
    )
}

// Generated from Unicode 14: the compatibility decomposition of each character's full case folding, or of its upper
// case if only that is ASCII, without marks; and the letters with strokes and Greek letters of Windows-1252's best fit.
// Texts with a character that no source name has are left out.

/// The first character of a run, and the letter for each from there on; `?` for none. In order.
#[rustfmt::skip]
const ONE: &[(u32, &str)] = &[
    (0xa0, " "), (0xa8, " ?a???? ??23 ??? 1o?????aaaaaa?ceeeeiiii?nooooo?ouuuuy??aaaaaa?ceeeeiiii"),
    (0xf1, "nooooo?ouuuuy?yaaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiii??jjkk?l"),
    (0x13a, "lllll??llnnnnnn???oooooo??rrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzsb"), (0x197, "i"), (0x1a0, "oo"),
    (0x1af, "uu"), (0x1cd, "aaiioouuuuuuuuuu?aaaa????ggkkoooo??j???gg??nnaa????aaaaeeeeiiiioooorrrru"),
    (0x215, "uuusstt??hh??????aaeeooooooooyy"), (0x2b0, "h?jr???wy"), (0x2d8, "      ???lsx"), (0x37a, " "),
    (0x384, "  "), (0x393, "g????t"), (0x3a3, "s??f??o"), (0x3b1, "a??de"), (0x3c0, "p??st?f"),
    (0x1d2c, "a?b?de?ghijklmn?o?prtuwa???bde???g?km?o???ptu??v??????iruv"), (0x1d9c, "c???f"), (0x1dbb, "z"),
    (0x1e00, "aabbbbbbccddddddddddeeeeeeeeeeffgghhhhhhhhhhiiiikkkkkkllllllllmmmmmmnnnn"),
    (0x1e48, "nnnnoooooooopppprrrrrrrrssssssssssttttttttuuuuuuuuuuvvvvwwwwwwwwwwxxxxyy"),
    (0x1e90, "zzzzzzhtwy?s????aaaaaaaaaaaaaaaaaaaaaaaaeeeeeeeeeeeeeeeeiiiioooooooooooo"),
    (0x1ed8, "oooooooooooouuuuuuuuuuuuuuyyyyyyyy"), (0x1fbd, " ?   "), (0x1fcd, "   "), (0x1fdd, "   "),
    (0x1fed, "  `"), (0x1ffd, "  ?           "), (0x2017, " "), (0x2024, "."), (0x202f, " "), (0x203e, " "),
    (0x205f, " "), (0x2070, "0i??456789+????n0123456789+?????aeox?hklmnpst"), (0x2102, "c"),
    (0x210a, "ghhhh?iill?n???pqrrr??????z???z?kabc?eef?mo????i"), (0x2145, "ddeij"),
    (0x2160, "i???v????x??lcdmi???v????x??lcdm"), (0x2460, "123456789"),
    (0x24b6, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz0"), (0x2c7c, "jv"), (0x3000, " "), (0x309b, "  "),
    (0xa7f2, "cfq"), (0xfb29, "+"), (0xfc5e, "      "), (0xfe15, "!"), (0xfe33, "__"), (0xfe47, "[?    ___??.????!"),
    (0xfe5f, "#?*+-?????$?????? ? ? ? ? ? ? ? "), (0xff01, "!?#$??'??*+?-.?0123456789"),
    (0xff21, "abcdefghijklmnopqrstuvwxyz[??^_`abcdefghijklmnopqrstuvwxyz?|?~"), (0xffe3, " "), (0x107a5, "q"),
    (0x1d400, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrst"),
    (0x1d448, "uvwxyzabcdefg?ijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmn"),
    (0x1d490, "opqrstuvwxyza?cd??g??jk??nopq?stuvwxyzabcd?f?hijklmn?pqrstuvwxyzabcdefgh"),
    (0x1d4d8, "ijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzab?defg??jklmnopq?stuvwxy?ab"),
    (0x1d520, "cdefghijklmnopqrstuvwxyzab?defg?ijklm?o???stuvwxy?abcdefghijklmnopqrstuv"),
    (0x1d568, "wxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnop"),
    (0x1d5b0, "qrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghij"),
    (0x1d5f8, "klmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcd"),
    (0x1d640, "efghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwx"),
    (0x1d688, "yzabcdefghijklmnopqrstuvwxyz"), (0x1d7ce, "01234567890123456789012345678901234567890123456789"),
    (0x1f12b, "cr???abcdefghijklmnopqrstuvwxyz"), (0x1fbf0, "0123456789"),
];

/// In order.
#[rustfmt::skip]
const SEVERAL: &[(u32, &str)] = &[
    (0xdf, "ss"), (0x132, "ij"), (0x133, "ij"), (0x1c4, "dz"), (0x1c5, "dz"), (0x1c6, "dz"), (0x1c7, "lj"),
    (0x1c8, "lj"), (0x1c9, "lj"), (0x1ca, "nj"), (0x1cb, "nj"), (0x1cc, "nj"), (0x1f1, "dz"), (0x1f2, "dz"),
    (0x1f3, "dz"), (0x1e9e, "ss"), (0x2025, ".."), (0x2026, "..."), (0x203c, "!!"), (0x20a8, "rs"), (0x2116, "no"),
    (0x2120, "sm"), (0x2121, "tel"), (0x2122, "tm"), (0x213b, "fax"), (0x2161, "ii"), (0x2162, "iii"), (0x2163, "iv"),
    (0x2165, "vi"), (0x2166, "vii"), (0x2167, "viii"), (0x2168, "ix"), (0x216a, "xi"), (0x216b, "xii"),
    (0x2171, "ii"), (0x2172, "iii"), (0x2173, "iv"), (0x2175, "vi"), (0x2176, "vii"), (0x2177, "viii"),
    (0x2178, "ix"), (0x217a, "xi"), (0x217b, "xii"), (0x2469, "10"), (0x246a, "11"), (0x246b, "12"), (0x246c, "13"),
    (0x246d, "14"), (0x246e, "15"), (0x246f, "16"), (0x2470, "17"), (0x2471, "18"), (0x2472, "19"), (0x2473, "20"),
    (0x2488, "1."), (0x2489, "2."), (0x248a, "3."), (0x248b, "4."), (0x248c, "5."), (0x248d, "6."), (0x248e, "7."),
    (0x248f, "8."), (0x2490, "9."), (0x2491, "10."), (0x2492, "11."), (0x2493, "12."), (0x2494, "13."),
    (0x2495, "14."), (0x2496, "15."), (0x2497, "16."), (0x2498, "17."), (0x2499, "18."), (0x249a, "19."),
    (0x249b, "20."), (0x3250, "pte"), (0x3251, "21"), (0x3252, "22"), (0x3253, "23"), (0x3254, "24"), (0x3255, "25"),
    (0x3256, "26"), (0x3257, "27"), (0x3258, "28"), (0x3259, "29"), (0x325a, "30"), (0x325b, "31"), (0x325c, "32"),
    (0x325d, "33"), (0x325e, "34"), (0x325f, "35"), (0x32b1, "36"), (0x32b2, "37"), (0x32b3, "38"), (0x32b4, "39"),
    (0x32b5, "40"), (0x32b6, "41"), (0x32b7, "42"), (0x32b8, "43"), (0x32b9, "44"), (0x32ba, "45"), (0x32bb, "46"),
    (0x32bc, "47"), (0x32bd, "48"), (0x32be, "49"), (0x32bf, "50"), (0x32cc, "hg"), (0x32cd, "erg"), (0x32ce, "ev"),
    (0x32cf, "ltd"), (0x3371, "hpa"), (0x3372, "da"), (0x3373, "au"), (0x3374, "bar"), (0x3375, "ov"), (0x3376, "pc"),
    (0x3377, "dm"), (0x3378, "dm2"), (0x3379, "dm3"), (0x337a, "iu"), (0x3380, "pa"), (0x3381, "na"), (0x3383, "ma"),
    (0x3384, "ka"), (0x3385, "kb"), (0x3386, "mb"), (0x3387, "gb"), (0x3388, "cal"), (0x3389, "kcal"), (0x338a, "pf"),
    (0x338b, "nf"), (0x338e, "mg"), (0x338f, "kg"), (0x3390, "hz"), (0x3391, "khz"), (0x3392, "mhz"), (0x3393, "ghz"),
    (0x3394, "thz"), (0x3396, "ml"), (0x3397, "dl"), (0x3398, "kl"), (0x3399, "fm"), (0x339a, "nm"), (0x339c, "mm"),
    (0x339d, "cm"), (0x339e, "km"), (0x339f, "mm2"), (0x33a0, "cm2"), (0x33a1, "m2"), (0x33a2, "km2"),
    (0x33a3, "mm3"), (0x33a4, "cm3"), (0x33a5, "m3"), (0x33a6, "km3"), (0x33a9, "pa"), (0x33aa, "kpa"),
    (0x33ab, "mpa"), (0x33ac, "gpa"), (0x33ad, "rad"), (0x33b0, "ps"), (0x33b1, "ns"), (0x33b3, "ms"), (0x33b4, "pv"),
    (0x33b5, "nv"), (0x33b7, "mv"), (0x33b8, "kv"), (0x33b9, "mv"), (0x33ba, "pw"), (0x33bb, "nw"), (0x33bd, "mw"),
    (0x33be, "kw"), (0x33bf, "mw"), (0x33c2, "a.m."), (0x33c3, "bq"), (0x33c4, "cc"), (0x33c5, "cd"), (0x33c7, "co."),
    (0x33c8, "db"), (0x33c9, "gy"), (0x33ca, "ha"), (0x33cb, "hp"), (0x33cc, "in"), (0x33cd, "kk"), (0x33ce, "km"),
    (0x33cf, "kt"), (0x33d0, "lm"), (0x33d1, "ln"), (0x33d2, "log"), (0x33d3, "lx"), (0x33d4, "mb"), (0x33d5, "mil"),
    (0x33d6, "mol"), (0x33d7, "ph"), (0x33d8, "p.m."), (0x33d9, "ppm"), (0x33da, "pr"), (0x33db, "sr"),
    (0x33dc, "sv"), (0x33dd, "wb"), (0x33ff, "gal"), (0xfb00, "ff"), (0xfb01, "fi"), (0xfb02, "fl"), (0xfb03, "ffi"),
    (0xfb04, "ffl"), (0xfb05, "st"), (0xfb06, "st"), (0xfe19, "..."), (0xfe30, ".."), (0x1f100, "0."),
    (0x1f12d, "cd"), (0x1f12e, "wz"), (0x1f14a, "hv"), (0x1f14b, "mv"), (0x1f14c, "sd"), (0x1f14d, "ss"),
    (0x1f14e, "ppv"), (0x1f14f, "wc"), (0x1f16a, "mc"), (0x1f16b, "md"), (0x1f16c, "mr"), (0x1f190, "dj"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_many_forms_are_read_as_ascii() {
        for (character, text) in [
            ('\u{17f}', "s"),
            ('\u{212a}', "k"),
            ('\u{131}', "i"),
            ('\u{130}', "i"),
            ('\u{df}', "ss"),
            ('\u{fb06}', "st"),
            ('\u{ff21}', "a"),
            ('\u{ff5a}', "z"),
            ('\u{ff3f}', "_"),
            ('\u{ff0e}', "."),
            ('\u{ff3b}', "["),
            ('\u{e9}', "e"),
            ('\u{1e61}', "s"),
            ('\u{1d400}', "a"),
            ('\u{1d7ff}', "9"),
            ('\u{24d0}', "a"),
            ('\u{2075}', "5"),
            ('\u{2179}', "x"),
            ('\u{a0}', " "),
            ('\u{3000}', " "),
            ('\u{3b1}', "a"),
        ] {
            assert_eq!(ascii(u32::from(character)), Some(text), "{character:?}");
        }
        // Cyrillic, Han, and signs that are not letters: no reader takes these for ASCII.
        for character in ['\u{430}', '\u{4e00}', '\u{b6}', '\u{80}', '\u{10ffff}', '\u{2028}'] {
            assert_eq!(ascii(u32::from(character)), None, "{character:?}");
        }
        assert!((0..0x80).all(|byte| ascii(byte).is_none()));
        assert!(is_ignored(0x200b) && is_ignored(0x301) && !is_ignored(0x41) && !is_ignored(0xa0));
    }

    #[test]
    fn the_tables_are_in_order() {
        assert!(SEVERAL.is_sorted_by(|one, next| one.0 < next.0));
        let end = |run: &(u32, &str)| run.0 + u32::try_from(run.1.len()).unwrap();
        assert!(ONE.windows(2).all(|runs| end(&runs[0]) <= runs[1].0));
        assert!(ONE.iter().chain(SEVERAL).all(|(_, text)| text.is_ascii()));
    }
}
