"""How the status page looks: one column on a phone, two on a desk, light or dark as the reader has it.

Colours have a contrast of at least 4.5 : 1 on their ground (WCAG AA) in both, and none speaks alone: a mark or a word
stands beside it.
"""

COLOURS = {"good": "#17713a", "warning": "#8a5a00", "error": "#b3261e", "info": "#1f5fa8", "none": "#5a626b"}
"""The tones of the light page; the icon in the browser's tab has them too."""

STYLE = """
:root{color-scheme:light dark;--bg:#f4f5f6;--card:#fff;--fg:#1c2024;--dim:#5a626b;--line:#dadde1;--code:#eef0f2;
--good:#17713a;--warning:#8a5a00;--error:#b3261e;--info:#1f5fa8;--none:#5a626b}
@media(prefers-color-scheme:dark){:root{--bg:#121517;--card:#1a1e21;--fg:#e4e7ea;--dim:#9ba4ae;--line:#32383e;
--code:#262b30;--good:#5fcb8d;--warning:#e5b44f;--error:#ff8d83;--info:#82b8f2;--none:#9ba4ae}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:1rem;max-width:72rem;background:var(--bg);color:var(--fg);overflow-wrap:anywhere;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1,h2,h3,p,ul,dl,dd,pre{margin:0;padding:0}
ul{list-style:none}
h2{font-size:1rem;margin-bottom:.5rem}
h3{font-size:1rem;line-height:1.4}
a{color:var(--info)}
code,pre{font-family:ui-monospace,"SF Mono",Menlo,"DejaVu Sans Mono",monospace;font-size:.86em}
code{background:var(--code);border-radius:3px;padding:.1em .3em}
.good{--tone:var(--good)}.warning{--tone:var(--warning)}.error{--tone:var(--error)}.info{--tone:var(--info)}
.none{--tone:var(--none)}
.tone{color:var(--tone)}
.dim,dt{color:var(--dim)}
time{white-space:nowrap}
dd .remedy{margin-top:.3rem}
.small{font-size:.87rem}
header{border-left:6px solid var(--tone);padding:.1rem 0 .1rem .9rem;margin-bottom:1.25rem}
header h1{font-size:1rem;font-weight:500;color:var(--dim)}
.state{font-size:2.4rem;line-height:1.15;font-weight:700;color:var(--tone)}
section{margin-bottom:1.25rem;min-width:0}
.card{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.75rem .9rem}
.card+.card{margin-top:.6rem}
article.card{border-left:4px solid var(--tone)}
article:target{outline:2px solid var(--tone)}
article>*+*{margin-top:.4rem}
.remedy{padding-left:1.4em;text-indent:-1.4em}
.remedy::before{content:"→";display:inline-block;width:1.4em;text-indent:0;color:var(--dim)}
pre{white-space:pre-wrap;background:var(--code);border-radius:4px;padding:.4rem .6rem;max-height:15em;overflow:auto}
li+li{margin-top:.45rem}
.row{display:flex;gap:.5rem}
.row>:last-child{min-width:0}
.mark{color:var(--tone);font-weight:700;width:1em;flex:none;text-align:center}
dt{font-size:.8rem}
dd+dt{margin-top:.6rem}
dd pre{margin-top:.3rem}
summary{cursor:pointer;font-weight:600}
summary+*{margin-top:.6rem}
footer{border-top:1px solid var(--line);padding-top:.75rem;color:var(--dim)}
@media(min-width:60rem){body{padding:1.75rem 2rem}
main{display:grid;grid-template:"found handlers" auto "found doing" 1fr/minmax(0,1fr) 20rem;gap:0 1.75rem}
.found{grid-area:found}.handlers{grid-area:handlers}.doing{grid-area:doing}}
"""
"""The style sheet; it names no outside resource, and the page's policy lets in no other."""
