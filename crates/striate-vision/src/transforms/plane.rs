//! Maps of the plane, by which pictures, boxes and shapes are moved.

/// A map of the plane with perspective: (x, y, 1) times the rows, divided by the third.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PlaneMap(pub(super) [[f64; 3]; 3]);

impl PlaneMap {
    pub(crate) fn affine(m: [f64; 6]) -> PlaneMap {
        PlaneMap([[m[0], m[1], m[2]], [m[3], m[4], m[5]], [0.0, 0.0, 1.0]])
    }

    pub(super) fn identity() -> PlaneMap {
        PlaneMap::scale(1.0, 1.0)
    }

    pub(crate) fn shift(x: f64, y: f64) -> PlaneMap {
        PlaneMap::affine([1.0, 0.0, x, 0.0, 1.0, y])
    }

    pub(crate) fn scale(x: f64, y: f64) -> PlaneMap {
        PlaneMap::affine([x, 0.0, 0.0, 0.0, y, 0.0])
    }

    /// First this, then `next`.
    pub(crate) fn then(self, next: PlaneMap) -> PlaneMap {
        let product = |i: usize, j: usize| (0..3).map(|k| next.0[i][k] * self.0[k][j]).sum();
        PlaneMap([0, 1, 2].map(|i| [0, 1, 2].map(|j| product(i, j))))
    }

    pub(crate) fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let row = |i: usize| self.0[i][0] * x + self.0[i][1] * y + self.0[i][2];
        let w = row(2);
        [row(0) / w, row(1) / w]
    }

    /// The way back, by cofactors; the maps made here can all be undone.
    pub(crate) fn inverse(&self) -> PlaneMap {
        let m = &self.0;
        let cofactor = |i: usize, j: usize| {
            let (a, b, c, d) = ((i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3);
            m[a][c] * m[b][d] - m[a][d] * m[b][c]
        };
        let determinant: f64 = (0..3).map(|j| m[0][j] * cofactor(0, j)).sum();
        PlaneMap([0, 1, 2].map(|i| [0, 1, 2].map(|j| cofactor(j, i) / determinant)))
    }

    /// The box around a box's corners.
    pub(crate) fn around(&self, [x1, y1, x2, y2]: [f64; 4]) -> [f64; 4] {
        let corners = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]].map(|corner| self.apply(corner));
        let least = |axis: usize| corners.iter().map(|c| c[axis]).fold(f64::INFINITY, f64::min);
        let most = |axis: usize| corners.iter().map(|c| c[axis]).fold(f64::NEG_INFINITY, f64::max);
        [least(0), least(1), most(0), most(1)]
    }
}
