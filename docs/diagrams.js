// Draw the diagrams in the colours of the page, and again when those change.
const night = matchMedia('(prefers-color-scheme: dark)');
const diagrams = [...document.querySelectorAll('pre.mermaid')].map(place => [place, place.textContent]);
let drawn = null, drawing = false;

function theme() {  // Furo says light, dark or auto
  const wish = document.body.dataset.theme;
  return wish === 'dark' || (wish !== 'light' && night.matches) ? 'dark' : 'default';
}

async function draw() {
  if (drawing) return;
  drawing = true;
  while (drawn !== theme()) {
    drawn = theme();
    mermaid.initialize({startOnLoad: false, theme: drawn});
    for (const [n, [place, source]] of diagrams.entries()) {
      place.dataset.drawn = drawn;
      try { place.innerHTML = (await mermaid.render(`diagram-${n}`, source)).svg; }
      catch (error) { console.error(error); continue; }  // its source stays
    }
  }
  drawing = false;
}

new MutationObserver(draw).observe(document.body, {attributeFilter: ['data-theme']});
night.addEventListener('change', draw);
draw();
