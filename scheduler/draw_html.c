/* The grid in a page of its own: details under the pointer, zoom, pan, the critical path, and what each rank keeps.
 * Nothing is loaded. */
#include <errno.h>
#include <string.h>

#include "scheduler/draw_internal.h"

static const char page_style[] =
    "html,body{margin:0;height:100%;font:13px Helvetica,Arial,sans-serif;color:#222}\n"
    "body{display:flex;flex-direction:column}\n"
    "#bar{padding:6px 10px;border-bottom:1px solid #ddd;background:#fafafa}\n"
    "#bar button{margin-right:4px}\n"
    "#bar label{margin:0 14px}\n"
    "#view{flex:1;overflow:hidden;cursor:grab}\n"
    "#view svg{width:100%;height:100%;display:block;user-select:none}\n"
    "#tip{position:fixed;display:none;padding:6px 9px;border-radius:4px;background:#222;color:#fff;white-space:pre}\n"
    "#tip{pointer-events:none}\n"
    ".cell:hover rect{stroke:#000;stroke-width:1.6}\n"
    ".critical .cell:not(.crit){opacity:.22}\n"
    ".follow .cell:not(.same){opacity:.22}\n";

static const char page_script[] =
    "const svg=document.querySelector('svg');\n"
    "const view=document.getElementById('view');\n"
    "const tip=document.getElementById('tip');\n"
    "const cells=document.querySelectorAll('.cell');\n"
    "const whole=svg.viewBox.baseVal;\n"
    "const full={w:whole.width,h:whole.height};\n"
    "svg.setAttribute('preserveAspectRatio','xMinYMin meet');\n"
    "\n"
    "// What part of the drawing is shown.\n"
    "let box={x:0,y:0,w:full.w,h:full.h};\n"
    "const show=()=>svg.setAttribute('viewBox',[box.x,box.y,box.w,box.h].join(' '));\n"
    "const ratio=()=>Math.max(box.w/(view.clientWidth||1),box.h/(view.clientHeight||1));\n"
    "const place=e=>{\n"
    "  const r=svg.getBoundingClientRect(),k=ratio();\n"
    "  return {x:box.x+(e.clientX-r.left)*k,y:box.y+(e.clientY-r.top)*k};\n"
    "};\n"
    "const zoom=(f,p)=>{\n"
    "  p=p||{x:box.x+box.w/2,y:box.y+box.h/2};\n"
    "  box={x:p.x-(p.x-box.x)*f,y:p.y-(p.y-box.y)*f,w:box.w*f,h:box.h*f};\n"
    "  show();\n"
    "};\n"
    "const fit=()=>{box={x:0,y:0,w:full.w,h:full.h};show()};\n"
    "const real=()=>{box={x:0,y:0,w:view.clientWidth||full.w,h:view.clientHeight||full.h};show()};\n"
    "view.addEventListener('wheel',e=>{\n"
    "  e.preventDefault();\n"
    "  zoom(e.deltaY>0?1.2:1/1.2,place(e));\n"
    "},{passive:false});\n"
    "\n"
    "let drag=null,moved=false;\n"
    "view.addEventListener('pointerdown',e=>{drag={x:e.clientX,y:e.clientY};moved=false});\n"
    "addEventListener('pointerup',()=>drag=null);\n"
    "addEventListener('pointermove',e=>{\n"
    "  if(!drag)return;\n"
    "  const k=ratio(),dx=e.clientX-drag.x,dy=e.clientY-drag.y;\n"
    "  box.x-=dx*k;\n"
    "  box.y-=dy*k;\n"
    "  moved=moved||Math.abs(dx)+Math.abs(dy)>2;\n"
    "  drag={x:e.clientX,y:e.clientY};\n"
    "  show();\n"
    "});\n"
    "\n"
    "// Details under the pointer.\n"
    "const say=(e,text)=>{\n"
    "  tip.textContent=text;\n"
    "  tip.style.display='block';\n"
    "  tip.style.left=Math.min(e.clientX+14,innerWidth-tip.offsetWidth-8)+'px';\n"
    "  tip.style.top=Math.min(e.clientY+14,innerHeight-tip.offsetHeight-8)+'px';\n"
    "};\n"
    "const details=c=>{\n"
    "  const [what,rank,position,start,end,critical]=c.dataset.d.split('|');\n"
    "  const took=+(end-start).toPrecision(6);\n"
    "  return what+'\\nrank '+rank+', position '+position+'\\n'+start+' to '+end+' '+unit+' ('+took+')'\n"
    "    +(critical=='1'?'\\non the critical path':'');\n"
    "};\n"
    "const kept=(e,c)=>{\n"
    "  const t=(place(e).x-left)/scale,points=curves[c.dataset.r];\n"
    "  let v=0;\n"
    "  for(let i=0;i<points.length&&points[i]<=t;i+=2)v=points[i+1];\n"
    "  const amount=bytes?(v/1048576).toFixed(2)+' MiB':v+' activations';\n"
    "  return 'rank '+c.dataset.r+' at '+ +t.toPrecision(6)+' '+unit+': '+amount;\n"
    "};\n"
    "view.addEventListener('pointermove',e=>{\n"
    "  const cell=e.target.closest('.cell'),curve=e.target.closest('.curve');\n"
    "  if(cell)say(e,details(cell));\n"
    "  else if(curve)say(e,kept(e,curve));\n"
    "  else tip.style.display='none';\n"
    "});\n"
    "view.addEventListener('pointerleave',()=>tip.style.display='none');\n"
    "\n"
    "// A click follows a micro-batch.\n"
    "view.addEventListener('click',e=>{\n"
    "  if(moved)return;\n"
    "  const c=e.target.closest('.cell');\n"
    "  svg.classList.toggle('follow',!!c&&c.dataset.m>=0);\n"
    "  cells.forEach(o=>o.classList.toggle('same',!!c&&o.dataset.m==c.dataset.m));\n"
    "});\n"
    "\n"
    "document.getElementById('in').onclick=()=>zoom(1/1.5);\n"
    "document.getElementById('out').onclick=()=>zoom(1.5);\n"
    "document.getElementById('fit').onclick=fit;\n"
    "document.getElementById('real').onclick=real;\n"
    "document.getElementById('path').onchange=e=>svg.classList.toggle('critical',e.target.checked);\n"
    "addEventListener('keydown',e=>{\n"
    "  if(e.key=='+')zoom(1/1.5);\n"
    "  if(e.key=='-')zoom(1.5);\n"
    "  if(e.key=='0')fit();\n"
    "  if(e.key=='1')real();\n"
    "});\n"
    "if(full.w>4*(view.clientWidth||full.w))real();\n"
    "document.body.dataset.cells=cells.length;\n"
    "document.body.dataset.curves=document.querySelectorAll('.curve').length;\n";

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
    fputs("<div id=\"bar\"><button id=\"in\">zoom in</button><button id=\"out\">zoom out</button>"
          "<button id=\"fit\">whole</button><button id=\"real\">full size</button>"
          "<label><input type=\"checkbox\" id=\"path\"> critical path</label>"
          "wheel: zoom; drag: move; click: follow a micro-batch</div>\n<div id=\"view\">\n",
          stream);
    mhp_svg_write(drawing, &page, true, stream);
    fprintf(stream, "</div>\n<div id=\"tip\"></div>\n<script>\nconst left=%.9g,scale=%.9g,unit='%s',bytes=%s;\n",
            page.left, page.pixels_a_us, drawing->time_unit[0] ? drawing->time_unit : "units",
            drawing->curve_is_bytes ? "true" : "false");
    write_curves(drawing, stream);
    fprintf(stream, "%s</script>\n</body>\n</html>\n", page_script);
    return ferror(stream) ? mhp_error_set(MHP_ERR_IO, "cannot write the page: %s", strerror(errno)) : MHP_OK;
}
