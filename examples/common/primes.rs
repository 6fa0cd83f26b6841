//! Trial division, and six numbers for which it takes a while.

/// Five primes and, at the end, a composite number.
pub(crate) const PRIMES: [u64; 6] = [
    112_272_535_095_293,
    112_582_705_942_171,
    112_272_535_095_293,
    115_280_095_190_773,
    115_797_848_077_099,
    1_099_726_899_285_419,
];

/// Divides by 2, then by the odd numbers up to the square root.
pub(crate) fn is_prime(n: u64) -> bool {
    if n < 2 {
        return false;
    }
    if n % 2 == 0 {
        return n == 2;
    }
    (3..=n.isqrt()).step_by(2).all(|divisor| n % divisor != 0)
}
