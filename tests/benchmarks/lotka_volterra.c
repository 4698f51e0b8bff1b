/* Lotka-Volterra by hand: the limit that the benchmark compares with. y0' = a y0 - b y0 y1, y1' = -c y1 + d y0 y1.
   Value: sum of the squares of the final state. Gradient: of that in a, b, c, d, by the adjoint of the steps taken;
   the states are stored, the stages are computed again. */
#include <math.h>
#include <stdlib.h>

#ifdef LANES
typedef double num __attribute__((vector_size(64))); /* eight trajectories side by side */
#else
typedef double num;
#endif
#define STAGES 7

static inline void field(const num *p, const num *y, num *f) {
    f[0] = p[0] * y[0] - p[1] * y[0] * y[1];
    f[1] = -p[2] * y[1] + p[3] * y[0] * y[1];
}

/* Adds the products of the adjoint w of the field with its derivatives to those of state (gy) and parameters (gp). */
static inline void field_adjoint(const num *p, const num *y, const num *w, num *gy, num *gp) {
    num xy = y[0] * y[1];
    gy[0] += w[0] * (p[0] - p[1] * y[1]) + w[1] * p[3] * y[1];
    gy[1] += -w[0] * p[1] * y[0] + w[1] * (p[3] * y[0] - p[2]);
    gp[0] += w[0] * y[0];
    gp[1] -= w[0] * xy;
    gp[2] -= w[1] * y[1];
    gp[3] += w[1] * xy;
}

static inline void rk4_adjoint(const num *p, const num *y, num h, num *a, num *gp) {
    num k1[2], k2[2], k3[2], y2[2], y3[2], y4[2], w[2], g1[2] = {0}, g2[2] = {0}, g3[2] = {0}, g4[2] = {0}, gy[2];
    field(p, y, k1);
    for (int i = 0; i < 2; i++) y2[i] = y[i] + 0.5 * h * k1[i];
    field(p, y2, k2);
    for (int i = 0; i < 2; i++) y3[i] = y[i] + 0.5 * h * k2[i];
    field(p, y3, k3);
    for (int i = 0; i < 2; i++) y4[i] = y[i] + h * k3[i];
    for (int i = 0; i < 2; i++) { gy[i] = a[i]; w[i] = h / 6 * a[i]; }
    field_adjoint(p, y4, w, g4, gp);
    for (int i = 0; i < 2; i++) w[i] = h / 3 * a[i] + h * g4[i];
    field_adjoint(p, y3, w, g3, gp);
    for (int i = 0; i < 2; i++) w[i] = h / 3 * a[i] + 0.5 * h * g3[i];
    field_adjoint(p, y2, w, g2, gp);
    for (int i = 0; i < 2; i++) { w[i] = h / 6 * a[i] + 0.5 * h * g2[i]; }
    field_adjoint(p, y, w, g1, gp);
    for (int i = 0; i < 2; i++) a[i] = gy[i] + g1[i] + g2[i] + g3[i] + g4[i];
}

/* rows: workspace for n + 1 states. Returns the value, fills the four derivatives. */
num rk4(const num *p, const num *y0, num h, int n, num *rows, num *gradient) {
    rows[0] = y0[0];
    rows[1] = y0[1];
    for (int s = 0; s < n; s++) {
        const num *y = rows + 2 * s;
        num k1[2], k2[2], k3[2], k4[2], u[2];
        field(p, y, k1);
        for (int i = 0; i < 2; i++) u[i] = y[i] + 0.5 * h * k1[i];
        field(p, u, k2);
        for (int i = 0; i < 2; i++) u[i] = y[i] + 0.5 * h * k2[i];
        field(p, u, k3);
        for (int i = 0; i < 2; i++) u[i] = y[i] + h * k3[i];
        field(p, u, k4);
        for (int i = 0; i < 2; i++) rows[2 * s + 2 + i] = y[i] + h / 6 * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]);
    }
    const num *e = rows + 2 * n;
    num a[2] = {2 * e[0], 2 * e[1]};
    for (int j = 0; j < 4; j++) gradient[j] = 0 * a[0];
    for (int s = n - 1; s >= 0; s--) rk4_adjoint(p, rows + 2 * s, h, a, gradient);
    return e[0] * e[0] + e[1] * e[1];
}

#ifdef LANES

/* The mean over `count` trajectories, a multiple of eight, from `starts` (count x 2), and its gradient. */
double rk4_batch(const double *p, const double *starts, double h, int n, int count, double *gradient) {
    num *rows = aligned_alloc(64, (2 * (size_t)n + 2) * sizeof(num)), ps[4], step = h - (num){0}, y0[2], g[4];
    double value = 0;
    for (int j = 0; j < 4; j++) { ps[j] = p[j] - (num){0}; gradient[j] = 0; }
    for (int b = 0; b < count; b += 8) {
        for (int l = 0; l < 8; l++) for (int i = 0; i < 2; i++) y0[i][l] = starts[2 * (b + l) + i];
        num v = rk4(ps, y0, step, n, rows, g);
        for (int l = 0; l < 8; l++) {
            value += v[l] / count;
            for (int j = 0; j < 4; j++) gradient[j] += g[j][l] / count;
        }
    }
    free(rows);
    return value;
}

#else

static const num A[STAGES][STAGES] = {
    {0},
    {0.161},
    {-0.008480655492356989, 0.335480655492357},
    {2.8971530571054935, -6.359448489975075, 4.3622954328695815},
    {5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525},
    {5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383},
    {0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774}};
static const num E[STAGES] = {0.00178001105222577714, 0.0008164344596567469, -0.007880878010261995,
                              0.1447110071732629,     -0.5823571654525552,   0.45808210592918697,
                              -1.0 / 66.0};

static inline void stages(const num *p, const num *y, num h, num k[STAGES][2], num u[STAGES][2], int from) {
    for (int s = from; s < STAGES; s++) {
        for (int i = 0; i < 2; i++) {
            num sum = 0;
            for (int j = 0; j < s; j++) sum += A[s][j] * k[j][i];
            u[s][i] = y[i] + h * sum;
        }
        field(p, u[s], k[s]);
    }
}

/* Tsit5 with an integral step size controller as diffrax's (safety 0.9, factors 0.2 to 10, rms norm) from step h;
   hs and rows: workspace for `most` steps. Fills the number of accepted steps; returns NaN if they do not suffice. */
num tsit5(const num *p, const num *y0, num t1, num h, num rtol, num atol, int most, num *hs, num *rows,
          num *gradient, int *accepted) {
    num t = 0, k[STAGES][2], u[STAGES][2];
    int n = 0;
    rows[0] = y0[0];
    rows[1] = y0[1];
    field(p, y0, k[0]);
    while (t1 - t > 4e-16 * t1) {
        if (n == most) return NAN;
        const num *y = rows + 2 * n;
        if (h > t1 - t) h = t1 - t;
        stages(p, y, h, k, u, 1);
        num sum = 0;
        for (int i = 0; i < 2; i++) {
            num error = 0;
            for (int s = 0; s < STAGES; s++) error += E[s] * k[s][i];
            num r = h * error / (atol + rtol * fmax(fabs(y[i]), fabs(u[6][i])));
            sum += r * r;
        }
        num norm = sqrt(sum / 2);
        num factor = norm == 0 ? 10 : fmin(10, fmax(0.2, 0.9 * pow(norm, -0.2)));
        if (norm < 1) {
            hs[n++] = h;
            t += h;
            for (int i = 0; i < 2; i++) { rows[2 * n + i] = u[6][i]; k[0][i] = k[6][i]; }
            if (factor < 1) factor = 1;
        }
        h *= factor;
    }
    const num *e = rows + 2 * n;
    num a[2] = {2 * e[0], 2 * e[1]};
    for (int j = 0; j < 4; j++) gradient[j] = 0;
    for (int r = n - 1; r >= 0; r--) {
        const num *y = rows + 2 * r;
        num step = hs[r], g[STAGES][2], next[2] = {a[0], a[1]};
        field(p, y, k[0]);
        for (int i = 0; i < 2; i++) u[0][i] = y[i];
        stages(p, y, step, k, u, 1);
        for (int s = 5; s >= 0; s--) {
            num w[2];
            for (int i = 0; i < 2; i++) {
                w[i] = step * A[6][s] * a[i];
                for (int q = s + 1; q < 6; q++) w[i] += step * A[q][s] * g[q][i];
                g[s][i] = 0;
            }
            field_adjoint(p, u[s], w, g[s], gradient);
            for (int i = 0; i < 2; i++) next[i] += g[s][i];
        }
        a[0] = next[0];
        a[1] = next[1];
    }
    *accepted = n;
    return e[0] * e[0] + e[1] * e[1];
}

#endif
