"""The look of the report page: one style sheet, light and dark, phone and desk."""

CSS = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#57606a;--rule:#d0d7de;
--card:#f6f8fa;--link:#0550ae;--good:#116329;--bad:#a40e26;--odd:#6e3fb5;
--c0:#0550ae;--c1:#a8400a;--c2:#1a7f37;--c3:#8250df;--c4:#a40e6b;--c5:#57606a}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9da7b3;
--rule:#30363d;--card:#161b22;--link:#79c0ff;--good:#56d364;--bad:#ff8a80;
--odd:#d2a8ff;--c0:#79c0ff;--c1:#ffa657;--c2:#56d364;--c3:#d2a8ff;--c4:#ff9bce;
--c5:#adbac7}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1rem;background:var(--bg);color:var(--fg);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,.wide:focus-visible{outline:3px solid var(--link);
outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{position:static}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.25rem;margin:2rem 0 .5rem;
border-bottom:1px solid var(--rule)}h3{font-size:1.05rem;margin:1.25rem 0 .5rem}
.verdict{border:2px solid;border-left-width:.75rem;border-radius:.4rem;
padding:.5rem 1rem;font-size:1.15rem;font-weight:600;margin:.75rem 0}
.passed{color:var(--good)}.failed,.error,.blocked,.unfinished{color:var(--bad)}
.invalid,.no-verdict{color:var(--odd)}
.rehearsal{background-image:repeating-linear-gradient(135deg,var(--card) 0 1.5rem,
transparent 1.5rem 3rem)}
.banner{border:2px dashed var(--bad);padding:.5rem 1rem;font-weight:700}
.dim{color:var(--dim)}
.wide{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--dim);padding:.25rem 0}
th,td{border-bottom:1px solid var(--rule);padding:.25rem .6rem;text-align:left;
vertical-align:top;overflow-wrap:normal}
.wraps th,.wraps td{overflow-wrap:anywhere;min-width:6rem}
td.n,th.n{text-align:right;white-space:nowrap}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,28rem),1fr));
gap:1rem}
figure{margin:0;background:var(--card);border-radius:.4rem;padding:.5rem}
figure>svg{width:100%;height:auto;display:block}
svg text{fill:var(--fg);font:12px system-ui,sans-serif}
.grid{stroke:var(--rule);fill:none}.line{fill:none;stroke-width:2}
.mark{stroke-width:1;fill-opacity:.8}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}
.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}
.mark.c0{fill:var(--c0)}.mark.c1{fill:var(--c1)}.mark.c2{fill:var(--c2)}
.mark.c3{fill:var(--c3)}.mark.c4{fill:var(--c4)}.mark.c5{fill:var(--c5)}
.whisker{stroke:var(--fg);fill:none;stroke-width:1.5}
.bound{stroke:var(--c4);fill:none;stroke-width:3}
.rule{stroke:var(--bad);fill:none;stroke-width:1.5;stroke-dasharray:6 4}
.pair{min-width:0}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.25rem 0;
padding:0;font-size:.85rem}.legend svg{width:1rem;height:.75rem;margin-right:.3rem}
section>figure{max-width:44rem}
figcaption{font-size:.9rem;color:var(--dim)}
.box{fill:var(--bg);stroke:var(--fg);stroke-width:1.5}
.wire{stroke:var(--dim);fill:none;stroke-width:1.5}.kv{stroke:var(--c1);fill:none;
stroke-width:3}
pre{overflow-x:auto;background:var(--card);padding:.75rem;font-size:.85rem}
details{margin:.5rem 0}summary{cursor:pointer}
@media(max-width:40rem){body{padding:.5rem}figure{padding:.25rem}
figure>svg text{font-size:14px}figure.plot>svg text{font-size:19px}
th,td{padding:.25rem .4rem}}
@media print{details{display:block}body{max-width:none}}
""".strip()
