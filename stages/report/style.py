"""The style sheet of every page: light and dark by the reader's own setting, one column wide or narrow, and in print.

Blue is the negative side of a strength, orange the positive one; nothing relies on colour alone.
"""

STYLE = """
:root{color-scheme:light dark;
--paper:#f6f5f2;--card:#fff;--ink:#1e1d1b;--soft:#66635c;--faint:#8f8b83;--line:#e4e1da;--wash:#f0eeea;
--minus:#2f66ad;--plus:#bd5414;--accent:#3553c4;--good:#19764a;--bad:#b3371f;--idle:#b9b4a9;
--shadow:0 1px 2px rgb(30 29 27/.05),0 6px 20px rgb(30 29 27/.04)}
@media(prefers-color-scheme:dark){:root{
--paper:#131315;--card:#1c1c1f;--ink:#ecebe7;--soft:#a9a69f;--faint:#7f7c76;--line:#303034;--wash:#26262a;
--minus:#7fb0f0;--plus:#f2a167;--accent:#9db0ff;--good:#5fcb95;--bad:#f58b73;--idle:#55545a;
--shadow:0 1px 2px rgb(0 0 0/.4)}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
font-variant-numeric:tabular-nums}
body::before{content:"";display:block;height:4px;background:linear-gradient(90deg,var(--minus),var(--idle),var(--plus))}
main{max-width:1120px;margin:0 auto;padding:2.4rem 1.5rem 4rem}
code,pre,.id{font-family:ui-monospace,"SF Mono","Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.82em}
h1{font-size:clamp(1.9rem,5vw,2.7rem);line-height:1.1;letter-spacing:-.025em;margin:.1em 0 .35em;font-weight:680;overflow-wrap:anywhere}
h2{font-size:1.35rem;letter-spacing:-.012em;margin:3rem 0 .9rem;font-weight:650}
h3{font-size:1.06rem;margin:0;font-weight:640;overflow-wrap:anywhere}
p{margin:.4em 0}
.over{color:var(--soft);font-size:.86rem;margin:0}
.meta{display:flex;flex-wrap:wrap;gap:.35rem 1.4rem;color:var(--soft);font-size:.9rem;margin:0}
.meta b{color:var(--ink);font-weight:560}
.state{display:inline-block;padding:.05rem .6rem;border-radius:99px;font-size:.8rem;font-weight:600;border:1px solid currentColor}
.state.done{color:var(--good)}.state.failed{color:var(--bad)}.state.running{color:var(--accent)}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin:1.4rem 0 0;padding:.75rem 0;border-block:1px solid var(--line);font-size:.9rem}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline;text-underline-offset:3px}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;box-shadow:var(--shadow)}
section>.card+.card{margin-top:1rem}
.pad{padding:1.15rem 1.3rem}
.head{display:flex;flex-wrap:wrap;align-items:baseline;gap:.1rem .9rem;padding:1rem 1.3rem .2rem}
.head .over{margin-left:auto}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.2rem,1fr));overflow:hidden}
.cards>div{padding:.95rem 1.2rem .9rem;box-shadow:0 0 0 .5px var(--line)}
.cards>div{display:flex;flex-direction:column;justify-content:space-between}
.cards span{color:var(--soft);font-size:.84rem}
.cards b{display:block;font-size:1.6rem;line-height:1.25;letter-spacing:-.02em;font-weight:620;white-space:nowrap}
.cards .bad b{color:var(--bad)}
.shares{padding:1rem 1.2rem 1.05rem;border-top:1px solid var(--line)}
.stacked{display:flex;gap:2px;height:9px;border-radius:6px;overflow:hidden}
.stacked span{min-width:3px}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1.1rem;margin-top:.55rem;color:var(--soft);font-size:.84rem}
.legend em{font-style:normal;color:var(--ink);margin-left:.4em}
.key{display:inline-block;width:.7em;height:.7em;border-radius:3px;margin-right:.45em}
.good{background:var(--good)}.bad-tone{background:var(--bad)}.idle{background:var(--idle)}.accent{background:var(--accent)}
.notices{list-style:none;margin:1rem 0 0;padding:.7rem 1.2rem;border-left:3px solid var(--plus);background:var(--wash);border-radius:0 8px 8px 0;font-size:.92rem}
table{border-collapse:collapse;width:100%}
th{font-weight:560;text-align:left}
.scroll{overflow-x:auto}
.strips{table-layout:fixed;width:calc(100% - 2.4rem);margin:.3rem 1.2rem .9rem}
.strips th,.strips td{padding:.28rem}
.strips th[scope=row]{padding-left:.1rem;padding-right:.8rem;vertical-align:middle;font-weight:400;line-height:1.4}
.strips .name{width:9.4rem}
.strips thead th{font-size:.88rem;text-align:center;color:var(--soft);padding-block:.5rem .15rem;white-space:nowrap}
.strips thead .neg{color:var(--minus)}.strips thead .pos{color:var(--plus)}.strips thead .nil{color:var(--ink)}
.strips thead small{font-size:.86em;opacity:.8;margin-left:.1em}
.strips img,.blank{display:block;width:100%;max-width:168px;margin:0 auto;border-radius:9px;background:var(--wash)}
.strips td.zero img{box-shadow:0 0 0 2px var(--card),0 0 0 4px var(--idle)}
.blank{aspect-ratio:1;display:grid;place-items:center;color:var(--faint);border:1px dashed var(--line);background:none}
.id,.print{color:var(--soft);overflow-wrap:anywhere}
.id+.id::before{content:"→ ";color:var(--faint)}
.strips .id{display:block}
.note{display:inline-block;margin-top:.25rem;font-size:.78rem;color:var(--bad)}
.wide{padding:.4rem 1.3rem 1rem}
.facts{font-size:.93rem}
.facts th,.facts td{padding:.6rem .9rem .6rem 0;border-bottom:1px solid var(--line);vertical-align:top}
.facts tr:last-child>*{border-bottom:0}
.facts thead th{color:var(--soft);font-size:.84rem;font-weight:500;padding-bottom:.4rem}
.facts tbody th{font-weight:600;overflow-wrap:anywhere}
.facts small{display:block;color:var(--soft);font-weight:400;font-size:.84rem}
.facts .n{white-space:nowrap}
.figure{display:flex;align-items:center;gap:.7rem}
.figure b{min-width:2.7rem;font-weight:600}
.whisker{position:relative;flex:1;min-width:5.5rem;height:14px;border-radius:3px;background:var(--wash)}
.fill{position:absolute;inset:0 auto 0 0;border-radius:3px;background:var(--accent);opacity:.42}
.span{position:absolute;top:3px;height:8px;min-width:3px;border:solid var(--ink);border-width:0 1.5px;
background:linear-gradient(var(--ink),var(--ink)) center/100% 1.5px no-repeat}
.bar{display:block;height:9px;border-radius:5px;background:var(--wash);overflow:hidden;flex:1}
.bar span{display:block;height:100%;border-radius:5px;background:var(--accent)}
.bar span.bad-tone{background:var(--bad)}
.rows{display:grid;gap:.75rem}
.row{display:grid;grid-template-columns:minmax(7rem,11rem) 1fr minmax(8.5rem,auto);gap:.2rem 1rem;align-items:center;font-size:.93rem}
.row b{font-weight:600;overflow-wrap:anywhere}.row small{color:var(--soft);font-weight:400;margin-left:.5em}
.row .val{text-align:right;white-space:nowrap}.row .val small{display:inline-block}
.failure+.failure{margin-top:1.3rem;padding-top:1.2rem;border-top:1px solid var(--line)}
.examples{display:grid;grid-template-columns:repeat(auto-fill,minmax(16.5rem,1fr));gap:.8rem 1.4rem;margin:.8rem 0 0;padding:0;list-style:none}
.examples li{display:grid;grid-template-columns:64px 1fr;gap:.85rem;align-items:start;font-size:.86rem;line-height:1.4}
.examples p{margin:.1rem 0 0;color:var(--soft);overflow-wrap:anywhere}
.thumb{width:64px;height:64px;border-radius:8px;object-fit:cover;background:var(--wash);border:1px solid var(--line);overflow:hidden}
.thumb img{display:block;width:100%;height:100%;object-fit:cover}
.thumb.hex{font:7.5px/1.42 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;color:var(--faint);padding:5px 0 0 6px;white-space:pre}
.more{color:var(--faint);font-size:.86rem;margin-top:.6rem}
.chart{margin:0}
.chart figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;gap:.2rem 1rem}
.chart figcaption b{font-weight:640}.chart .legend{margin:0}
.plot{display:grid;grid-template:clamp(180px,28vw,280px) 1.6rem/3.4rem 1fr;margin-top:1rem}
.area svg{display:block;width:100%;height:100%;overflow:visible}
.y-axis,.x-axis{position:relative;color:var(--faint);font-size:.78rem}
.x-axis{grid-column:2}
.y-axis span{position:absolute;right:.7rem;transform:translateY(50%);line-height:1}
.x-axis span{position:absolute;top:.4rem;transform:translateX(-50%);line-height:1.2;white-space:nowrap}
.rule{stroke:var(--line);stroke-width:1}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}
.curve.ink0{stroke:var(--accent)}.curve.ink1{stroke:var(--plus)}.curve.ink2{stroke:var(--good)}.curve.ink3{stroke:var(--idle)}
.key.ink0{background:var(--accent)}.key.ink1{background:var(--plus)}.key.ink2{background:var(--good)}.key.ink3{background:var(--idle)}
.axis-names{color:var(--faint);font-size:.8rem;text-align:center;margin:.3rem 0 0}
details summary{cursor:pointer;font-weight:600;list-style-position:inside}
details+details{margin-top:.8rem}
pre{margin:.9rem 0 0;padding:1rem 1.1rem;background:var(--wash);border-radius:10px;overflow-x:auto;line-height:1.5;font-size:.84rem}
.versions{display:grid;grid-template-columns:repeat(auto-fill,minmax(10.5rem,1fr));gap:.15rem 1.6rem;margin:.8rem 0 0;font-size:.9rem}
.versions div{display:flex;justify-content:space-between;gap:1rem;border-bottom:1px solid var(--line);padding:.25rem 0}
.versions dt{color:var(--soft)}.versions dd{margin:0;overflow-wrap:anywhere;text-align:right}
.asked{display:flex;gap:1.2rem;align-items:center}
.asked img,.asked .blank{width:132px;margin:0;border-radius:12px;flex:none}
.hits{display:grid;grid-template-columns:repeat(auto-fill,minmax(158px,1fr));gap:1rem;margin:1.4rem 0 0;padding:0;list-style:none}
.hit{overflow:hidden}
.hit img,.hit .blank{display:block;width:100%;max-width:none;aspect-ratio:1;object-fit:cover;border-radius:0;border:0}
.hit .text{padding:.65rem .85rem .8rem}
.hit .top{display:flex;justify-content:space-between;font-size:.86rem;color:var(--soft)}.hit .top b{color:var(--ink);font-weight:620}
.chips{display:flex;flex-wrap:wrap;gap:.25rem;margin-top:.5rem}
.chips span{font-size:.76rem;line-height:1.5;padding:0 .5rem;border-radius:99px;background:var(--wash);color:var(--soft)}
.chips .yes{color:var(--good)}
footer{margin-top:3rem;color:var(--faint);font-size:.84rem}
@media(max-width:640px){
main{padding:1.5rem .9rem 3rem}
h2{margin-top:2.3rem}
.pad,.wide{padding-inline:1rem}
.head{padding-inline:1rem}.head .over{margin-left:0;width:100%}
.cards{grid-template-columns:repeat(auto-fit,minmax(6.4rem,1fr))}
.cards>div{padding:.75rem .9rem}.cards b{font-size:1.25rem}.cards span{font-size:.79rem}
.strips,.strips thead,.strips tbody{display:block}
.strips tr{display:grid;grid-template-columns:repeat(var(--frames),1fr);padding:0 .75rem}
.strips tbody tr{padding-bottom:.6rem}
.strips thead th{font-size:.74rem;padding-inline:0;letter-spacing:-.02em}
.strips thead .name{display:none}
.strips th[scope=row]{grid-column:1/-1;padding:.2rem .2rem .1rem;font-size:.95rem}
.strips th[scope=row] .id{display:inline;margin-right:.3em}
.strips{width:auto;min-width:calc(var(--frames)*46px + 1.5rem);margin-inline:0}
.strips th[scope=row] span{position:sticky;left:.95rem}
.strips td{padding:.13rem}
.strips img,.blank{border-radius:5px}
.strips td.zero img{box-shadow:0 0 0 1px var(--card),0 0 0 2.5px var(--idle)}
.facts thead{display:none}
.facts,.facts tbody,.facts tr,.facts th,.facts td{display:block}
.facts tr{padding:.7rem 0;border-bottom:1px solid var(--line)}.facts tr:last-child{border-bottom:0}
.facts th,.facts td{border:0;padding:.12rem 0}
.facts td[data-label]{display:grid;grid-template-columns:6.3rem 1fr;gap:.6rem;align-items:center}
.facts td[data-label]::before{content:attr(data-label);color:var(--soft);font-size:.84rem}
.facts .n small{display:inline;margin-left:.5em}
.row{grid-template-columns:1fr auto}.row .bar{grid-column:1/-1;grid-row:2}
.plot{grid-template-columns:2.7rem 1fr}
.asked{align-items:flex-start}.asked img,.asked .blank{width:92px}
.hits{grid-template-columns:1fr 1fr;gap:.7rem}
}
@media print{body{background:#fff}.card{box-shadow:none;break-inside:avoid}nav{display:none}}
"""
