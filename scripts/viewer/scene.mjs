// Posed bodies in 3D, to turn with the mouse. Bundled with three.js into bodyreg/assets/viewer/scene.js by build.mjs.
//
// Points come in the photograph's camera frame (OpenCV: x right, y down, z forward, metres) and are shown y up.

import {
  BufferAttribute, BufferGeometry, Color, DirectionalLight, GridHelper, Group, HemisphereLight, LineBasicMaterial,
  LineSegments, Mesh, MeshBasicMaterial, MeshStandardMaterial, PCFShadowMap, PerspectiveCamera, PlaneGeometry, Scene,
  ShadowMaterial, Sphere, SphereGeometry, SRGBColorSpace, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";

const FIELD_OF_VIEW = 28; // degrees, of the looking camera; a photograph's own one has nothing to do with it
const VIEWS = { camera: [0, 0, 1], side: [1, 0, 0], back: [0, 0, -1], top: [0, 1, 0.001] };

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;
}

// (V, 3) uint16 steps from `low`, y and z turned.
function positions(person) {
  const steps = new Uint16Array(bytes(person.vertices));
  const out = new Float32Array(steps.length);
  for (let i = 0; i < steps.length; i += 3) {
    out[i] = person.low[0] + steps[i] * person.step[0];
    out[i + 1] = -(person.low[1] + steps[i + 1] * person.step[1]);
    out[i + 2] = -(person.low[2] + steps[i + 2] * person.step[2]);
  }
  return out;
}

function bodyMesh(person, faces, colour) {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(positions(person), 3));
  geometry.setIndex(new BufferAttribute(faces, 1));
  geometry.computeVertexNormals();
  geometry.computeBoundingSphere();
  const color = new Color().setRGB(...colour, SRGBColorSpace);
  const mesh = new Mesh(geometry, new MeshStandardMaterial({ color, roughness: 0.62 }));
  mesh.castShadow = true;
  return mesh;
}

function skeletonLines(person, parents) {
  const joints = person.joints.map(([x, y, z]) => new Vector3(x, -y, -z));
  const ends = joints.flatMap((joint, j) => (parents[j] < 0 ? [] : [joint, joints[parents[j]]]));
  const group = new Group();
  const ink = { color: 0x22262e, depthTest: false, transparent: true };
  group.add(new LineSegments(new BufferGeometry().setFromPoints(ends), new LineBasicMaterial(ink)));
  const dot = new SphereGeometry(0.014, 12, 8);
  const dotted = new MeshBasicMaterial(ink);
  for (const joint of joints) {
    const mark = new Mesh(dot, dotted);
    mark.position.copy(joint);
    group.add(mark);
  }
  group.renderOrder = 1;
  return group;
}

function dispose(object) {
  object.traverse((part) => {
    part.geometry?.dispose();
    part.material?.dispose();
  });
}

export function create(canvas) {
  const renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
  renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
  renderer.shadowMap.enabled = true;
  renderer.shadowMap.type = PCFShadowMap;
  const camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.05, 500);
  const controls = new OrbitControls(camera, canvas);
  controls.enableDamping = true;
  controls.dampingFactor = 0.12;
  const scene = new Scene();
  const key = new DirectionalLight(0xffffff, 1.9);
  key.castShadow = true;
  key.shadow.mapSize.set(2048, 2048);
  key.shadow.bias = -0.0005;
  key.shadow.normalBias = 0.02;
  key.shadow.radius = 5;
  const fill = new DirectionalLight(0xdfe8ff, 0.55);
  scene.add(new HemisphereLight(0xffffff, 0xc9c2b6, 1.5), key, key.target, fill, fill.target);

  let people = [];
  let stage = new Group();
  let around = new Sphere(new Vector3(), 1);
  let selected = -1;
  let bones = false;
  let view = "camera";
  let turned = false; // by the user, since the last view
  let frame = 0;

  const draw = () => {
    frame = 0;
    controls.update(); // asks for the next frame while damping moves
    renderer.render(scene, camera);
  };
  const ask = () => {
    frame ||= requestAnimationFrame(draw);
  };
  controls.addEventListener("change", ask);
  controls.addEventListener("start", () => { turned = true; });

  function frameView() {
    const shown = selected < 0 ? around : people[selected].mesh.geometry.boundingSphere;
    const half = Math.min(FIELD_OF_VIEW / 2, (Math.atan(Math.tan((FIELD_OF_VIEW * Math.PI) / 360) * camera.aspect) * 180) / Math.PI);
    const distance = (shown.radius * 1.08) / Math.sin((half * Math.PI) / 180);
    const direction = view === "camera" ? shown.center.clone().negate() : new Vector3(...VIEWS[view]);
    turned = false;
    controls.enableDamping = false; // a swing from before must not turn the new view
    controls.update();
    controls.enableDamping = true;
    controls.target.copy(shown.center);
    camera.position.copy(shown.center).addScaledVector(direction.normalize(), distance);
    controls.update();
    ask();
  }

  function dress() {
    people.forEach((person, k) => {
      const on = selected < 0 || selected === k;
      person.mesh.visible = on;
      person.bones.visible = on && bones;
      person.mesh.material.transparent = bones;
      person.mesh.material.opacity = bones ? 0.55 : 1;
      person.mesh.material.needsUpdate = true;
    });
    ask();
  }

  function floor() {
    const low = Math.min(...people.map((p) => (p.mesh.geometry.computeBoundingBox(), p.mesh.geometry.boundingBox.min.y)));
    const size = Math.max(12, Math.ceil(around.radius * 5) * 2);
    const grid = new GridHelper(size, size * 2, 0x8a8f98, 0x8a8f98);
    grid.material.transparent = true;
    grid.material.opacity = 0.22;
    const shade = new Mesh(new PlaneGeometry(size, size), new ShadowMaterial({ opacity: 0.22 }));
    shade.rotation.x = -Math.PI / 2;
    shade.receiveShadow = true;
    grid.position.set(around.center.x, low, around.center.z);
    shade.position.set(around.center.x, low - 0.002, around.center.z);
    stage.add(grid, shade);
  }

  function light() {
    const { center, radius } = around;
    key.position.copy(center).add(new Vector3(-0.9, 1.7, 2.1).multiplyScalar(radius * 1.5));
    fill.position.copy(center).add(new Vector3(1.6, 0.4, -1.2).multiplyScalar(radius * 1.5));
    key.target.position.copy(center);
    fill.target.position.copy(center);
    const box = key.shadow.camera;
    [box.left, box.right, box.bottom, box.top] = [-1.5 * radius, 1.5 * radius, -1.5 * radius, 1.5 * radius];
    [box.near, box.far] = [0.1, radius * 9];
    box.updateProjectionMatrix();
  }

  function show(data, faces) {
    scene.remove(stage);
    dispose(stage);
    stage = new Group();
    selected = -1;
    view = "camera";
    people = data.people.map((person) => ({
      mesh: bodyMesh(person, faces, person.colour),
      bones: skeletonLines(person, data.parents),
    }));
    around = people[0].mesh.geometry.boundingSphere.clone();
    for (const { mesh, bones: lines } of people) {
      around.union(mesh.geometry.boundingSphere);
      stage.add(mesh, lines);
    }
    floor();
    light();
    scene.add(stage);
    dress();
    frameView();
  }

  function resize() {
    const { clientWidth: width, clientHeight: height } = canvas.parentElement;
    if (!width || !height) return;
    renderer.setSize(width, height, false);
    camera.aspect = width / height;
    camera.updateProjectionMatrix();
    if (turned || !people.length) ask();
    else frameView();
  }

  return {
    show,
    resize,
    look(name) { view = name; frameView(); },
    select(k) { selected = k; dress(); frameView(); },
    skeleton(on) { bones = on; dress(); },
  };
}

export function faces(base64) {
  return new Uint32Array(bytes(base64));
}
