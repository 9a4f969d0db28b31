/* The grid in a page of its own: details under the pointer, zoom, pan, the critical path, and what each rank keeps. Nothing is loaded. */
#include <errno.h>
#include <string.h>

#include "scheduler/draw_internal.h"

static const char page_style[] =
    "html,body{margin:0;height:100%;font:13px Helvetica,Arial,sans-serif;color:#222}\n"
    "body{display:flex;flex-direction:column}\n"
    "#bar{padding:6px 10px;border-bottom:1px solid #ddd;background:#fafafa}#bar button{margin-right:4px}#bar label{margin:0 14px}\n"
    "#view{flex:1;overflow:hidden;cursor:grab}#view svg{width:100%;height:100%;display:block;user-select:none}\n"
    "#tip{position:fixed;display:none;background:#222;color:#fff;padding:6px 9px;border-radius:4px;white-space:pre;pointer-events:none}\n"
    ".cell:hover rect{stroke:#000;stroke-width:1.6}.critical .cell:not(.crit){opacity:.22}.follow .cell:not(.same){opacity:.22}\n";

static const char page_script[] =
    "const svg=document.querySelector('svg'),view=document.getElementById('view'),tip=document.getElementById('tip');\n"
    "const whole=svg.viewBox.baseVal,full={w:whole.width,h:whole.height};\n"
    "svg.setAttribute('preserveAspectRatio','xMinYMin meet');\n"
    "let box={x:0,y:0,w:full.w,h:full.h};\n"
    "const show=()=>svg.setAttribute('viewBox',[box.x,box.y,box.w,box.h].join(' '));\n"
    "const ratio=()=>Math.max(box.w/(view.clientWidth||1),box.h/(view.clientHeight||1));\n"
    "const place=e=>{const r=svg.getBoundingClientRect(),k=ratio();return{x:box.x+(e.clientX-r.left)*k,y:box.y+(e.clientY-r.top)*k}};\n"
    "const zoom=(f,p)=>{p=p||{x:box.x+box.w/2,y:box.y+box.h/2};box={x:p.x-(p.x-box.x)*f,y:p.y-(p.y-box.y)*f,w:box.w*f,h:box.h*f};show()};\n"
    "const fit=()=>{box={x:0,y:0,w:full.w,h:full.h};show()};\n"
    "const real=()=>{box={x:0,y:0,w:view.clientWidth||full.w,h:view.clientHeight||full.h};show()};\n"
    "view.addEventListener('wheel',e=>{e.preventDefault();zoom(e.deltaY>0?1.2:1/1.2,place(e))},{passive:false});\n"
    "let drag=null,moved=false;\n"
    "view.addEventListener('pointerdown',e=>{drag={x:e.clientX,y:e.clientY};moved=false});\n"
    "addEventListener('pointerup',()=>drag=null);\n"
    "addEventListener('pointermove',e=>{if(!drag)return;const k=ratio();box.x-=(e.clientX-drag.x)*k;box.y-=(e.clientY-drag.y)*k;\n"
    " moved=moved||Math.abs(e.clientX-drag.x)+Math.abs(e.clientY-drag.y)>2;drag={x:e.clientX,y:e.clientY};show()});\n"
    "const say=(e,t)=>{tip.textContent=t;tip.style.display='block';\n"
    " tip.style.left=Math.min(e.clientX+14,innerWidth-tip.offsetWidth-8)+'px';\n"
    " tip.style.top=Math.min(e.clientY+14,innerHeight-tip.offsetHeight-8)+'px'};\n"
    "const details=c=>{const[d,r,p,s,e,k]=c.dataset.d.split('|');\n"
    " return d+'\\nrank '+r+', position '+p+'\\n'+s+' to '+e+' '+unit+' ('+ +(e-s).toPrecision(6)+')'+(k=='1'?'\\non the critical path':'')};\n"
    "const kept=(e,c)=>{const t=(place(e).x-left)/scale,p=curves[c.dataset.r];let v=0;\n"
    " for(let i=0;i<p.length&&p[i]<=t;i+=2)v=p[i+1];\n"
    " return 'rank '+c.dataset.r+' at '+ +t.toPrecision(6)+' '+unit+': '+(bytes?(v/1048576).toFixed(2)+' MiB':v+' activations')};\n"
    "view.addEventListener('pointermove',e=>{const c=e.target.closest('.cell'),k=e.target.closest('.curve');\n"
    " if(c)say(e,details(c));else if(k)say(e,kept(e,k));else tip.style.display='none'});\n"
    "view.addEventListener('pointerleave',()=>tip.style.display='none');\n"
    "const cells=document.querySelectorAll('.cell');\n"
    "view.addEventListener('click',e=>{if(moved)return;const c=e.target.closest('.cell');svg.classList.toggle('follow',!!c&&c.dataset.m>=0);\n"
    " cells.forEach(o=>o.classList.toggle('same',!!c&&o.dataset.m==c.dataset.m))});\n"
    "document.getElementById('in').onclick=()=>zoom(1/1.5);document.getElementById('out').onclick=()=>zoom(1.5);\n"
    "document.getElementById('fit').onclick=fit;document.getElementById('real').onclick=real;\n"
    "document.getElementById('path').onchange=e=>svg.classList.toggle('critical',e.target.checked);\n"
    "addEventListener('keydown',e=>{if(e.key=='+')zoom(1/1.5);if(e.key=='-')zoom(1.5);if(e.key=='0')fit();if(e.key=='1')real()});\n"
    "if(full.w>4*(view.clientWidth||full.w))real();\n"
    "document.body.dataset.cells=cells.length;document.body.dataset.curves=document.querySelectorAll('.curve').length;\n";

static void write_curves(const mhp_drawing *drawing, FILE *stream)
{
    fputs("const curves=[", stream);
    for (int r = 0; r < drawing->rank_count; r++) {
        const mhp_draw_curve *curve = &drawing->curves[r];

        fputs(r ? ",\n[" : "[", stream);
        for (size_t i = 0; i < curve->count; i++) {
            fprintf(stream, "%s%.9g,%.15g", i ? "," : "", curve->points[i].time_us, curve->points[i].value);
        }
        fputc(']', stream);
    }
    fputs("];\n", stream);
}

mhp_status mhp_draw_html(const mhp_drawing *drawing, FILE *stream)
{
    mhp_svg_page page;

    mhp_svg_layout(drawing, true, &page);
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>", stream);
    mhp_svg_text(drawing->title, stream);
    fprintf(stream, "</title>\n<style>\n%s</style>\n</head>\n<body>\n", page_style);
    fputs("<div id=\"bar\"><button id=\"in\">zoom in</button><button id=\"out\">zoom out</button><button id=\"fit\">whole</button>"
          "<button id=\"real\">full size</button><label><input type=\"checkbox\" id=\"path\"> critical path</label>"
          "wheel: zoom; drag: move; click: follow a micro-batch</div>\n<div id=\"view\">\n",
          stream);
    mhp_svg_write(drawing, &page, true, stream);
    fprintf(stream, "</div>\n<div id=\"tip\"></div>\n<script>\nconst left=%.9g,scale=%.9g,unit='%s',bytes=%s;\n", page.left, page.pixels_a_us,
            drawing->time_unit[0] ? drawing->time_unit : "units", drawing->curve_is_bytes ? "true" : "false");
    write_curves(drawing, stream);
    fprintf(stream, "%s</script>\n</body>\n</html>\n", page_script);
    return ferror(stream) ? mhp_error_set(MHP_ERR_IO, "cannot write the page: %s", strerror(errno)) : MHP_OK;
}
